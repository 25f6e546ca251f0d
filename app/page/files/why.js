// Why a question was flagged: what its layers add to the score, and which questions it lies near.

import { byId, make, number } from "./drawing.js";
import { lookName } from "./verdict.js";

const MOST_LAYERS = 6;

export function clearWhy() {
  byId("because").hidden = true;
  byId("because-parts").replaceChildren();
}

/** Into its card; of what was not flagged there is nothing to say. */
export function showWhy(why) {
  clearWhy();
  if (!why || why.look === null) return;
  const parts = [nearest(why)];
  if (why.layers.length) parts.unshift(layers(why));
  byId("because-look").textContent = `${lookName(why.look)}, whose score is the highest (${why.name}).`;
  byId("because-parts").replaceChildren(...parts);
  byId("because").hidden = false;
}

function layers(why) {
  const shown = [...why.layers].sort((a, b) => Math.abs(b.share) - Math.abs(a.share)).slice(0, MOST_LAYERS).sort((a, b) => b.share - a.share);
  const longest = Math.max(...shown.map((layer) => Math.abs(layer.share)), 1e-9);
  const rows = shown.map((layer) => {
    const bar = make("i", { class: layer.share > 0 ? "bar against" : "bar" });
    bar.style.width = `${50 * Math.abs(layer.share) / longest}%`;
    const track = make("div", { class: "shares", "aria-hidden": "true" }, bar);
    const said = layer.beyond ? make("small", {}, "above the central 95 %") : null;
    return make(
      "tr", {}, make("th", { scope: "row" }, `Layer ${layer.layer}`, said), make("td", { class: "wide" }, track),
      make("td", { class: "number" }, `${layer.share > 0 ? "+" : ""}${number(layer.share)}`),
    );
  });
  return make(
    "div", {},
    make("h3", {}, "Layers"),
    make("p", { class: "note" }, `What each adds to the score: over 0 it speaks against the question. All ${why.layers.length} together make ${number(why.score)}.`),
    make("table", { class: "layers", "aria-label": "What layers add to the score" }, make("tbody", {}, ...rows)),
  );
}

function nearest(why) {
  const parts = [make("h3", {}, "Nearest calibration questions")];
  if (why.note) return make("div", {}, ...parts, make("p", { class: "note" }, `Not known: ${why.note}.`));
  const usual = why.usual_distance;
  parts.push(make("p", { class: "note" }, `By distance between trajectories. Questions in scope are ${number(usual.median)} from their nearest, 97.5 % within ${number(usual.most)}.`));
  const items = why.neighbours.map((each) => make(
    "li", {},
    make("span", { class: "far" }, number(each.distance)),
    make(
      "span", {}, each.text ? make("q", {}, each.text) : make("span", { class: "id" }, each.id),
      make("small", {}, [each.file, each.kind].filter(Boolean).join(" · ")),
    ),
  ));
  parts.push(make("ol", { class: "near", "aria-label": "Nearest calibration questions" }, ...items));
  const kind = why.out_of_scope_kind;
  if (kind) {
    parts.push(make(
      "p", { class: "kind" }, "Of kinds out of scope the nearest is ", make("strong", {}, kind.name),
      ` (${number(kind.distance)} from the middle of ${kind.n_questions}).`,
    ));
  }
  return make("div", {}, ...parts);
}
