// A verdict in words and on scales, its looks, and the trajectory by layer against the band.

import { axis, byId, colours, icon, make, mark, number, plain, plot } from "./drawing.js";

/** How a decision is said, and as what it is drawn: inside, outside or unsure. */
export function told(decision, mode, stage) {
  const late = stage === "response";
  switch (decision) {
    case "allow":
      return { kind: "inside", icon: "inside", word: "In scope", brief: "", long: "Answered: the question is like those that were calibrated on." };
    case "refuse":
      return {
        kind: "outside", icon: "outside", word: "Out of scope", brief: "refused",
        long: late ? "Stopped: the response left the trajectories that were calibrated on." : "Refused before the first word was written.",
      };
    case "flag":
      return {
        kind: "outside", icon: "flag", word: "Out of scope", brief: mode === "shadow" ? "in shadow" : "flagged",
        long: mode === "shadow" ? "Answered all the same: in shadow mode verdicts are counted, and clients are told nothing." : "Flagged, and answered all the same.",
      };
    case "fail_closed":
      return { kind: "unsure", icon: "unsure", word: "Could not be judged", brief: "refused", long: "So it is not answered." };
    case "fail_open":
      return { kind: "unsure", icon: "unsure", word: "Could not be judged", brief: "answered", long: "Answered all the same." };
    default:
      return { kind: "unsure", icon: "unsure", word: "Not judged", brief: "answered", long: "Every look was left out of the decision." };
  }
}

const place = (share) => `${Math.min(Math.max(100 * share, 0), 100)}%`;

function scale(kind, { name, value, text, said, at, limit, zone, ticks }) {
  const here = make("i", { class: "here" });
  here.style.left = place(at);
  const bound = make("i", { class: "limit" });
  bound.style.left = place(limit);
  const shaded = make("i", { class: `zone from-${zone}` });
  shaded.style.width = place(zone === "left" ? limit : 1 - limit);
  const marks = make("div", { class: "ticks" });
  for (const tick of ticks) {
    const side = tick.at === 0 ? "first" : tick.at === 1 ? "last" : "";
    const label = make("span", { class: tick.strong ? "strong" : side }, tick.text);
    label.style.left = place(tick.at);
    if (!tick.strong && Math.abs(tick.at - limit) < 0.12) continue;
    marks.append(label);
  }
  return make(
    "div", { class: `scale ${kind}`, role: "img", "aria-label": said },
    make("div", { class: "scale-head", "aria-hidden": "true" }, make("span", {}, name), make("span", {}, make("b", {}, value), ` ${text}`)),
    make("div", { class: "track", "aria-hidden": "true" }, shaded, bound, here),
    Object.assign(marks, { ariaHidden: "true" }),
  );
}

function pScale(kind, p, alpha) {
  const at = (value) => (Math.log10(Math.max(value, 1e-4)) + 4) / 4;
  const over = p > alpha;
  return scale(kind, {
    name: "p-value", value: number(p, 2), text: over ? `over alpha ${plain(alpha)}` : `not over alpha ${plain(alpha)}`,
    said: `p-value ${number(p, 2)}, ${over ? "over" : "not over"} alpha, ${plain(alpha)}`,
    at: at(p), limit: at(alpha), zone: "left",
    ticks: [
      { at: 0, text: "0.0001" }, { at: 0.25, text: "0.001" }, { at: 0.5, text: "0.01" }, { at: 0.75, text: "0.1" }, { at: 1, text: "1" },
      { at: at(alpha), text: `alpha ${plain(alpha)}`, strong: true },
    ],
  });
}

function scoreScale(kind, score, threshold) {
  const low = Math.min(-1, Math.floor(score)), high = Math.max(2 * threshold, 2, score * 1.15);
  const at = (value) => (value - low) / (high - low);
  const over = score > threshold;
  return scale(kind, {
    name: "score", value: number(score), text: `${over ? "over" : "not over"} the threshold ${number(threshold)}`,
    said: `score ${number(score)}, ${over ? "over" : "not over"} the threshold ${number(threshold)}; 0 is the median in scope, 1 its 95 % point`,
    at: at(score), limit: at(threshold), zone: "right",
    ticks: [{ at: at(0), text: "0 median" }, { at: at(threshold), text: number(threshold), strong: true }],
  });
}

const LOOKS = {
  question: "The question alone", prompt: "The end of the prompt", "prompt-mean": "The whole prompt", end: "The whole response",
};
export const lookName = (look) =>
  LOOKS[look] ?? (look.includes("-") ? `Tokens ${look.replace("-", " to ")}` : `After ${look} tokens`);

function looksTable(verdict) {
  const rows = verdict.looks.map((look) => {
    let word = { kind: "inside", icon: "inside", text: "under" };
    if (look.excluded) word = { kind: "unsure", icon: "unsure", text: "left out", why: look.excluded };
    else if (look.failure) word = { kind: "unsure", icon: "unsure", text: "failed", why: look.failure };
    else if (look.score > verdict.threshold) word = { kind: "outside", icon: "outside", text: "over" };
    return make(
      "tr", {},
      make("td", {}, lookName(look.look), make("small", {}, look.name)),
      make("td", { class: "number" }, number(look.score)),
      make("td", {}, make("span", { class: `word ${word.kind}` }, icon(word.icon), word.text), word.why ? make("small", {}, word.why) : null),
    );
  });
  return make(
    "table", { "aria-label": "Looks" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Look"), make("th", { scope: "col", class: "number" }, "Score"), make("th", { scope: "col" }, "Threshold"))),
    make("tbody", {}, ...rows),
  );
}

/** Write a verdict into the card: all of it, or the decision where the numbers are not told. */
export function showVerdict(verdict) {
  const { kind, icon: drawn, word, long } = told(verdict.decision, verdict.mode, verdict.stage);
  const where = verdict.stage ? ` Decided at the ${verdict.stage}.` : "";
  const parts = [make("div", { class: `decision ${kind}` }, icon(drawn), make("div", {}, make("b", {}, word), make("span", {}, long + where)))];
  if (verdict.p_value !== null && verdict.p_value !== undefined) parts.push(pScale(kind, verdict.p_value, verdict.alpha));
  if (verdict.score !== null && verdict.score !== undefined) parts.push(scoreScale(kind, verdict.score, verdict.threshold));
  if (verdict.looks) parts.push(looksTable(verdict));
  else parts.push(make("p", { class: "note" }, "Scores are told to privileged keys alone."));
  byId("verdict").replaceChildren(...parts);
  // Told once, however often it is drawn.
  const said = `${word}. ${long}`;
  if (byId("said").textContent !== said) byId("said").textContent = said;
  byId("verdict-empty").hidden = true;
}

const QUANTITY = {
  contrast: "what each layer adds to the score", mahalanobis: "distance to questions in scope",
};
const quantity = (name) => QUANTITY[name.split(":")[0]] ?? "distance behind the score";

const list = (items) => (items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items.at(-1)}`);

let drawn = [];

export function clearTrajectory() {
  for (const each of drawn) each.remove();
  drawn = [];
  byId("plots").replaceChildren();
  byId("why").hidden = true;
}

/** Each look's distances by layer, against the band of questions in scope. */
export function showTrajectory(explanation) {
  clearTrajectory();
  for (const look of explanation.verdict.looks ?? []) {
    const band = explanation.bands.find((each) => each.look === look.look && each.name === look.name);
    if (band && band.layers.length > 1 && band.layers.length === look.distances.length) draw(look, band);
  }
  byId("why").hidden = drawn.length === 0;
}

function draw(look, band) {
  byId("why").hidden = false;
  const edges = band.quantiles;
  const over = band.layers.map((_, i) => edges !== null && look.distances[i] !== null && look.distances[i] > edges[4][i]);
  const beyond = band.layers.filter((_, i) => over[i]);
  let summary = `Within or under the central 95 % at all ${band.layers.length} layers.`;
  if (beyond.length) summary = `Above the central 95 % at layer${beyond.length > 1 ? "s" : ""} ${list(beyond)}.`;
  if (edges === null) summary = "The artifact has no band to compare with: fit it again for one.";
  const holder = make("div", { class: "plot", role: "img", "aria-label": `${lookName(look.look)}, by layer. ${summary}` });
  const readout = make("p", { class: beyond.length ? "readout strong" : "readout" }, summary);
  const figure = make(
    "figure", {},
    make("figcaption", {}, lookName(look.look), make("small", {}, `${quantity(look.name)} (${look.name})`)),
    holder, readout, numbersOf(look, band),
  );
  byId("plots").append(figure);
  const none = band.layers.map(() => null);
  const data = [band.layers, ...(edges === null ? [none, none, none, none, none] : [edges[4], edges[0], edges[3], edges[1], edges[2]]), look.distances];
  const bare = { stroke: null, width: 0, points: { show: false } };
  const span = band.layers.at(-1) - band.layers[0];
  const made = plot(
    holder,
    {
      scales: { x: { time: false, range: [band.layers[0] - span * 0.03, band.layers.at(-1) + span * 0.03] } },
      series: [
        {}, bare, bare, bare, bare,
        { stroke: colours.inside, width: 1.5, dash: [5, 4], points: { show: false } },
        { stroke: colours.ink, width: 2, points: { show: false } },
      ],
      bands: [{ series: [1, 2], fill: colours.band }, { series: [3, 4], fill: colours.half }],
      axes: [
        axis({ label: "layer", splits: () => (band.layers.length < 14 ? band.layers : band.layers.filter((_, i) => i % 4 === 0)), grid: { show: false } }),
        axis({ size: 42, values: (_, splits) => splits.map((value) => String(value).replace("-", "−")) }),
      ],
      hooks: {
        draw: [(self) => {
          look.distances.forEach((value, i) => {
            if (value === null) return;
            const x = self.valToPos(band.layers[i], "x", true), y = self.valToPos(value, "y", true);
            mark(self, x, y, over[i] ? 6.5 : 3.5, over[i] ? colours.outside() : colours.ink(), over[i]);
          });
        }],
        setCursor: [(self) => {
          const i = self.cursor.idx;
          if (i === null || i === undefined) readout.textContent = summary;
          else {
            const usual = edges === null ? "" : `, in scope mostly ${number(edges[0][i])} to ${number(edges[4][i])}`;
            readout.textContent = `Layer ${band.layers[i]}: ${number(look.distances[i])}${usual}`;
          }
        }],
      },
    },
    data, 250,
  );
  drawn.push(made);
}

function numbersOf(look, band) {
  const rows = band.layers.map((layer, i) => make(
    "tr", {}, make("td", {}, String(layer)), make("td", { class: "number" }, number(look.distances[i])),
    ...(band.quantiles ?? []).map((quantile) => make("td", { class: "number" }, number(quantile[i]))),
  ));
  const heads = ["Layer", "This", ...(band.quantiles === null ? [] : ["2.5 %", "25 %", "Median", "75 %", "97.5 %"])];
  return make(
    "details", {}, make("summary", {}, "Numbers"),
    make(
      "div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Numbers of ${lookName(look.look).toLowerCase()}` },
      make("table", { "aria-label": "Numbers" }, make("thead", {}, make("tr", {}, ...heads.map((text, i) => make("th", { scope: "col", class: i ? "number" : null }, text)))), make("tbody", {}, ...rows)),
    ),
  );
}
