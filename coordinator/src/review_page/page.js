// The review page. Everything a reviewer does is sent at once; the server keeps it in the file.
"use strict";

const $ = id => document.getElementById(id);
const criteria = [...document.querySelectorAll(".criterion")];
const texts = ["strengths", "limitations", "best_use"];
const readiness = [...document.querySelectorAll("[name=readiness]")];

let outputs = []; // of the sweep, in blinded order: name, stars
let at = 0; // the output shown
let shown = null; // what the server says of it, and its review as it stands here
let criterion = 0; // the one that a digit gives stars to
let proofs = []; // lines with evidence
let proof = -1;
let timer = null; // a text that is not sent yet
let sending = Promise.resolve(); // one request after the other, so that the last word wins

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

function state(text, bad) {
  $("state").textContent = text;
  $("state").classList.toggle("bad", !!bad);
}

// --- saving

function save() {
  clearTimeout(timer);
  timer = null;
  const of = shown, item = outputs[at], body = JSON.stringify(of.review);
  state("saving…");
  sending = sending.then(async () => {
    try {
      const response = await fetch("/api/reviews/" + of.name, {
        method: "PUT", headers: { "content-type": "application/json" }, body,
      });
      if (!response.ok) throw new Error(await response.text());
      const saved = await response.json();
      item.given = saved.given;
      of.model = saved.model;
      state("saved");
      paint();
    } catch (error) {
      state("not saved: " + error.message, true);
    }
  });
  return sending;
}

function flush() {
  return timer === null ? sending : save();
}

// --- showing

function paint() {
  criteria.forEach((row, index) => {
    row.classList.toggle("now", index === criterion);
    const given = shown.review.stars[row.dataset.id] || 0;
    [...row.querySelectorAll("button")].forEach((button, n) => {
      button.textContent = n < given ? "★" : "☆";
      button.setAttribute("aria-pressed", n + 1 === given);
    });
  });
  [...$("progress").querySelectorAll("button")].forEach((dot, index) => {
    const given = outputs[index].given;
    dot.className = given === 0 ? "" : given < criteria.length ? "part" : "full";
    const words = given === 0 ? "no stars yet" : given < criteria.length ? "partly reviewed" : "reviewed";
    dot.setAttribute("aria-label", "Output " + (index + 1) + ", " + words);
    if (index === at) dot.setAttribute("aria-current", "true");
    else dot.removeAttribute("aria-current");
  });
  const done = outputs.filter(o => o.given === criteria.length).length;
  $("where").textContent = "output " + (at + 1) + " of " + outputs.length + ", " + done + " reviewed";
  $("model").textContent = "";
  if (shown.model) $("model").append("This was ", element("b", "", shown.model), ".");
}

async function show(index) {
  await flush();
  at = (index + outputs.length) % outputs.length;
  const response = await fetch("/api/outputs/" + outputs[at].name);
  if (!response.ok) return state("cannot show it: " + (await response.text()), true);
  shown = await response.json();
  criterion = 0;
  proof = -1;
  $("prompt").textContent = shown.prompt || "";
  for (const id of texts) $(id).value = shown.review[id];
  for (const choice of readiness) choice.checked = choice.value === shown.review.readiness;
  showEvidence();
  showLines();
  state("");
  paint();
  scrollTo(0, 0);
  document.body.dataset.shown = shown.name;
}

function showLines() {
  const lines = shown.lines.map((line, index) => {
    const row = element("div", line.kind);
    row.dataset.n = index + 1;
    const text = element("span");
    text.innerHTML = line.html; // escaped by the server, but for its colours
    row.append(text);
    return row;
  });
  for (const n of proofs) if (lines[n - 1]) lines[n - 1].classList.add("proof");
  $("code").replaceChildren(...lines);
}

function showEvidence() {
  const facts = shown.analysis || { findings: [], incomplete_because: [] };
  const words = [facts.complete ? "complete" : "not complete: " + facts.incomplete_because.join("; ")];
  if (facts.parses === true) words.push("parses");
  if (facts.parses === false) words.push("does not parse (line " + facts.syntax_error.line + ")");
  if (facts.coverage != null) words.push(Math.round(facts.coverage * 100) + " % of the rubric");
  for (const check of shown.checks) words.push(check.name + ": " + check.verdict.replace("_", " "));
  $("facts").textContent = words.join(" · ");
  const titles = Object.fromEntries(shown.items || []);
  const found = new Set();
  $("evidence").replaceChildren(...facts.findings.map(finding => {
    const item = element("li", finding.evidence.length ? "on" : "off");
    item.append((finding.evidence.length ? "✓ " : "✗ ") + (titles[finding.item] || finding.item) + " ");
    for (const { line, text } of finding.evidence) {
      found.add(line);
      const button = element("button", "", line);
      button.title = text;
      button.setAttribute("aria-label", "line " + line);
      button.onclick = () => goTo(line);
      item.append(button);
    }
    return item;
  }));
  proofs = [...found].sort((a, b) => a - b);
}

function goTo(line) {
  document.querySelector("#code .here")?.classList.remove("here");
  const row = $("code").children[line - 1];
  if (!row) return;
  row.classList.add("here");
  row.scrollIntoView({ block: "center" });
}

// --- judging

function star(count) {
  shown.review.stars[criteria[criterion].dataset.id] = count;
  if (criterion < criteria.length - 1) criterion++;
  paint();
  save();
}

function ready(value) {
  shown.review.readiness = value;
  for (const choice of readiness) choice.checked = choice.value === value;
  save();
}

function nextReadiness() {
  const now = readiness.findIndex(choice => choice.checked);
  ready(readiness[(now + 1) % readiness.length].value);
}

function nextOpen() {
  for (let step = 1; step <= outputs.length; step++) {
    const index = (at + step) % outputs.length;
    if (outputs[index].given < criteria.length) return show(index);
  }
  state("every output has its stars");
}

function nextProof() {
  if (proofs.length === 0) return state("no evidence here");
  proof = (proof + 1) % proofs.length;
  goTo(proofs[proof]);
}

const keys = {
  ArrowDown: () => { criterion = (criterion + 1) % criteria.length; paint(); },
  ArrowUp: () => { criterion = (criterion + criteria.length - 1) % criteria.length; paint(); },
  ArrowRight: () => show(at + 1),
  ArrowLeft: () => show(at - 1),
  n: nextOpen,
  e: nextProof,
  r: nextReadiness,
  p: () => { $("task").open = !$("task").open; },
  s: () => $("strengths").focus(),
  l: () => $("limitations").focus(),
  b: () => $("best_use").focus(),
};

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !shown) return;
  if (event.target.matches("textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  // A radio button moves by its own arrow keys.
  if (event.target.matches("input") && event.key.startsWith("Arrow")) return;
  const act = event.key >= "1" && event.key <= "5" && event.key.length === 1
    ? () => star(Number(event.key))
    : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// --- setting up

for (const [index, row] of criteria.entries()) {
  for (let count = 1; count <= 5; count++) {
    const button = element("button", "", "☆");
    button.type = "button";
    button.setAttribute("aria-label", count + " of 5 for " + row.dataset.id);
    button.onclick = () => { criterion = index; star(count); };
    row.querySelector(".stars").append(button);
  }
}
for (const id of texts) {
  $(id).oninput = () => {
    shown.review[id] = $(id).value;
    clearTimeout(timer);
    timer = setTimeout(save, 300);
  };
}
for (const choice of readiness) choice.onchange = () => ready(choice.value);
$("previous").onclick = () => show(at - 1);
$("next").onclick = () => show(at + 1);
addEventListener("pagehide", () => {
  if (timer === null) return;
  fetch("/api/reviews/" + shown.name, {
    method: "PUT", keepalive: true, headers: { "content-type": "application/json" },
    body: JSON.stringify(shown.review),
  });
});

(async () => {
  outputs = await (await fetch("/api/outputs")).json();
  $("progress").replaceChildren(...outputs.map((_, index) => {
    const place = element("li"), dot = element("button");
    dot.onclick = () => show(index);
    place.append(dot);
    return place;
  }));
  const open = outputs.findIndex(o => o.given < criteria.length);
  await show(Math.max(open, 0));
})();
