"use strict";
// Texts enter the page by textContent only: whatever a model or a rater wrote stays text.
const { kinds, entries, disagreed } = JSON.parse(document.getElementById("data").textContent);
const AT_ONCE = 20;
const at = (id) => document.getElementById(id);

function add(parent, tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}

function saysOf(vote, entry) {
  if (vote.preference === 0.5) return "tie";
  if (vote.preference === 1) return entry.a;
  if (vote.preference === 0) return entry.b;
  return `${entry.a} with probability ${vote.preference.toFixed(2)}`;
}

function card(entry) {
  const article = document.createElement("article");
  add(article, "h3", `${entry.number}${entry.category ? " · " + entry.category : ""}`);
  add(article, "p", entry.instruction, "text instruction");
  if (entry.input) add(article, "p", entry.input, "text input");
  if (entry.good_answer) add(article, "p", `A good answer: ${entry.good_answer}`, "text good");
  const outcomes = Object.values(entry.won);
  if (entry.answers.length) {
    const pair = add(article, "div", undefined, "answers");
    ["a", "b"].forEach((side, k) => {
      const won = outcomes.length && outcomes.every((winner) => winner === side);
      const box = add(pair, "div", undefined, won ? "answer won" : "answer");
      const heading = add(box, "h4", entry[side] + " ");
      add(heading, "small", `${entry.answers[k].length.toLocaleString("en")} characters${won ? ", preferred" : ""}`);
      add(box, "p", entry.answers[k] || "(empty)", "text output");
    });
  }
  const votes = add(article, "ul", undefined, "votes");
  for (const vote of entry.votes) {
    const line = add(votes, "li");
    const who = vote.rater || "unnamed";
    add(line, "span", `${vote.kind === "judge" ? "judge " : ""}${who}: ${saysOf(vote, entry)}`);
    if (vote.first) add(line, "small", ` (shown first: ${vote.first})`);
    if (vote.reason) add(line, "span", ` · ${vote.reason}`, "text");
  }
  return article;
}

function options(select, choices) {
  for (const [value, name] of choices) add(select, "option", name).value = value;
}

// What is searched, made once.
const haystacks = entries.map((entry) =>
  [entry.instruction, entry.input, ...entry.answers, ...entry.votes.map((vote) => vote.reason)].join("\n").toLowerCase());

let found = [];
let shown = 0;

function showMore() {
  const cards = document.querySelector("#browse .cards");
  cards.append(...found.slice(shown, shown + AT_ONCE).map(card));
  shown = Math.min(shown + AT_ONCE, found.length);
  at("more").hidden = shown >= found.length;
}

function filter() {
  const kind = at("kind").value, won = at("won").value, category = at("category").value;
  const words = at("text").value.toLowerCase().trim();
  const suits = (entry) =>
    won === "" ? true
    : won === "split" ? entry.split.includes(kind)
    : won === "none" ? !(kind in entry.won)
    : entry.won[kind] === won;
  found = entries.filter((entry, k) =>
    suits(entry) && (!category || entry.category === category) && (!words || haystacks[k].includes(words)));
  at("count").textContent = `${found.length.toLocaleString("en")} of ${entries.length.toLocaleString("en")}`;
  document.querySelector("#browse .cards").replaceChildren();
  shown = 0;
  showMore();
}

const categories = [...new Set(entries.map((entry) => entry.category).filter(Boolean))].sort();
options(at("kind"), kinds);
options(at("category"), categories.map((name) => [name, name]));
at("kind").parentElement.hidden = kinds.length < 2;
at("category").parentElement.hidden = !categories.length;
const names = new Set(entries.map((entry) => JSON.stringify([entry.a, entry.b])));
if (names.size === 1) {
  at("won").options[1].textContent = `${entries[0].a} won`;
  at("won").options[2].textContent = `${entries[0].b} won`;
}
at("filters").addEventListener("input", filter);
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("more").addEventListener("click", showMore);
document.querySelector("#disagreed .cards")?.append(...disagreed.map((place) => card(entries[place])));
filter();
