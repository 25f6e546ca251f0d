// The page: what is served, the question that is asked, and its answer.

import { Failure, ask, events, hasKey, setKey } from "./api.js";
import { byId } from "./drawing.js";
import { listen } from "./live.js";
import { clearTrajectory, showTrajectory, showVerdict } from "./verdict.js";
import { clearWhy, showWhy } from "./why.js";

const MOST_TOKENS = 256;
const needsKey = document.body.dataset.keys === "yes";
let guarding = null, asking = null, isListening = false;

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function status(state, text) {
  byId("status").dataset.state = state;
  byId("status").textContent = text;
}

function notice(text, kind) {
  byId("notice").hidden = !text;
  byId("notice").textContent = text ?? "";
  byId("notice").dataset.kind = kind ?? "";
  if (text) byId("notice").scrollIntoView({ block: "nearest" });
}

function lock(why) {
  setKey("");
  asking?.abort();
  status("waiting", "Waiting for a key");
  notice(null);
  byId("open").hidden = true;
  byId("forget").hidden = true;
  byId("locked").hidden = false;
  byId("wrong").textContent = why ?? "";
  byId("key").value = "";
  byId("key").focus();
}

/** Ask what is served until something is, or a key is missing. */
async function start() {
  if (needsKey && !hasKey()) return lock();
  for (;;) {
    try {
      guarding = await (await ask("/page/guard")).json();
      break;
    } catch (error) {
      if (error.status === 401) return lock("The service does not know this key.");
      status(error.status === 503 ? "waiting" : "failed", error.status === 503 ? "Not ready" : "Not reachable");
      notice(error.message, error.status === 503 ? "waiting" : "failed");
      byId("locked").hidden = true;
      await sleep(2000);
    }
  }
  notice(null);
  byId("locked").hidden = true;
  byId("open").hidden = false;
  byId("forget").hidden = !needsKey;
  byId("scope").textContent = guarding.scope;
  const facts = [guarding.model, `${guarding.mode} mode`];
  if (guarding.alpha !== null) facts.push(`alpha ${guarding.alpha}`);
  status("ready", facts.join(" · "));
  byId("no-live").hidden = guarding.sees_traffic;
  byId("live").hidden = !guarding.sees_traffic;
  if (guarding.sees_traffic && !isListening) {
    isListening = true;
    listen(() => { isListening = false; if (needsKey) lock("The service does not know this key."); });
  }
}

function begin(question) {
  notice(null);
  clearTrajectory();
  clearWhy();
  byId("read").hidden = true;
  byId("answer-empty").hidden = true;
  byId("answer").replaceChildren();
  byId("answer").classList.remove("refused");
  byId("answer").setAttribute("aria-busy", "true");
  byId("verdict").replaceChildren();
  byId("said").textContent = "";
  byId("verdict-empty").hidden = false;
  byId("verdict-empty").textContent = "Reading the question …";
  byId("send").disabled = true;
  byId("stop").hidden = false;
}

function end() {
  byId("answer").setAttribute("aria-busy", "false");
  byId("send").disabled = false;
  // Who stops by keyboard must not be left nowhere.
  if (document.activeElement === byId("stop")) byId("send").focus();
  byId("stop").hidden = true;
  asking = null;
}

async function submit() {
  const question = byId("question").value;
  if (asking || !guarding) return;
  if (!question.trim()) return byId("question").focus();
  asking = new AbortController();
  const { signal } = asking;
  begin(question);
  let id = null;
  try {
    const body = { messages: [{ role: "user", content: question }], stream: true, max_tokens: MOST_TOKENS };
    const response = await ask("/v1/chat/completions", { body, signal });
    id = response.headers.get("x-request-id");
    await showAnswer(response);
  } catch (error) {
    if (error.code === "content_filter") {
      id = error.headers.get("x-request-id");
      refused(error.message);
    } else {
      failed(error);
    }
  }
  try {
    if (id !== null && !signal.aborted) await explain(id, question, signal);
  } catch (error) {
    // The verdict stands; the layers behind it are what cannot be had.
    if (error.name !== "AbortError") byId("verdict-empty").textContent = "What it was judged by is not known any more.";
  }
  end();
}

async function showAnswer(response) {
  const text = document.createTextNode("");
  byId("answer").append(text);
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Failure(500, chunk.error.message, chunk.error.code, response.headers);
    if (chunk.trajguard) showVerdict(chunk.trajguard);
    const [choice] = chunk.choices;
    if (!choice) continue;
    if (choice.delta.refusal) refused(choice.delta.refusal);
    else if (choice.delta.content) text.appendData(choice.delta.content);
  }
  throw new Failure(0, "The answer was cut short: the connection ended.", null, response.headers);
}

function refused(text) {
  byId("answer").classList.add("refused");
  byId("answer").textContent = text;
}

function failed(error) {
  byId("verdict-empty").textContent = "There is no verdict.";
  if (error.name === "AbortError") return;
  if (error.status === 401) return lock("The service does not know this key.");
  const wait = error.headers?.get("retry-after");
  const again = error.status === 429 && wait ? ` (in ${wait} s)` : "";
  notice(`${error.message}${again}`, error.status === 429 ? "waiting" : "failed");
  if (error.status === 503) start();
}

async function explain(id, question, signal) {
  const response = await ask("/page/explain", { body: { request_id: id, question }, signal });
  const explanation = await response.json();
  showVerdict(explanation.verdict);
  showTrajectory(explanation);
  showWhy(explanation.why);
  const isSame = explanation.judged_text === question;
  byId("read").hidden = false;
  byId("read-text").textContent = explanation.judged_text;
  byId("read-note").textContent = isSame
    ? "Just as it was typed."
    : explanation.text === "typed" ? "As it was typed, without the space around it." : `As ${explanation.text} writes it: layout, marks and capitals say nothing, words, numbers and formulas stay.`;
}

byId("ask").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(); }
});
byId("stop").addEventListener("click", () => asking?.abort());
for (const chip of document.querySelectorAll(".chip")) {
  chip.addEventListener("click", () => {
    byId("question").value = chip.textContent.trim();
    submit();
  });
}
byId("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value.trim());
  byId("wrong").textContent = "";
  start();
});
byId("forget").addEventListener("click", () => { setKey(""); location.reload(); });

start();
