// The page: a model and a task are chosen, texts are sent, and the answer is shown.

import { ApiError, call, models } from "./api.js";
import { TASKS } from "./tasks.js";
import { element } from "./views.js";

const get = (id) => document.getElementById(id);
const [form, model, key, tasks, question, texts, result] =
  ["form", "model", "key", "tasks", "question", "texts", "result"].map(get);
let tasksOf = {};

const taskName = () => new FormData(form).get("task");

async function listModels() {
  say("");
  try {
    const served = await models(key.value);
    tasksOf = Object.fromEntries(served.map(({ id, tasks }) => [id, (tasks ?? []).filter((name) => name in TASKS)]));
    model.replaceChildren(...served.map(({ id }) => element("option", { value: id }, id)));
    listTasks();
  } catch (error) {
    fail(error);
  }
}

function listTasks() {
  const before = taskName();
  const names = tasksOf[model.value] ?? [];
  const chosen = names.includes(before) ? before : names[0];
  tasks.replaceChildren(tasks.firstElementChild, ...names.map((name) => element("label", {},
    element("input", { type: "radio", name: "task", value: name, checked: name === chosen }), TASKS[name].label)));
  showTask();
}

function showTask() {
  const task = TASKS[taskName()];
  get("run").disabled = get("example").disabled = !task;
  get("hint").textContent = task ? task.hint : "This model has no task that this page shows.";
  get("question-field").hidden = !task?.question;
  get("question-label").textContent = task?.question ?? "";
  get("texts-label").textContent = task?.texts ?? "Texts";
}

async function run() {
  const task = TASKS[taskName()];
  const [asked, written] = [question.value, texts.value];
  get("run").disabled = true;
  say("Running …");
  try {
    const { body, times } = await call(task.path, { model: model.value, ...task.body(asked, written) }, key.value);
    say("");
    result.replaceChildren(...task.view(body, asked, written));
    showTimes(body.usage, times);
  } catch (error) {
    fail(error);
  } finally {
    get("run").disabled = false;
  }
}

function showTimes(usage, times) {
  const facts = [["tokens", usage?.total_tokens], ...Object.entries(times).map(([name, ms]) => [name, `${ms} ms`])];
  get("times").replaceChildren(...facts.filter(([, value]) => value !== undefined).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, `${value}`))));
}

function say(text, isError = false) {
  get("status").textContent = text;
  get("status").classList.toggle("error", isError);
}

/** Show an error. A refused key opens the field for it. */
function fail(error) {
  result.replaceChildren();
  get("times").replaceChildren();
  say(error.message, true);
  if (error instanceof ApiError && error.status === 401) {
    get("key-field").hidden = false;
    key.focus();
  }
}

function showExample() {
  [question.value, texts.value] = TASKS[taskName()].example;
  run();
}

model.addEventListener("change", listTasks);
tasks.addEventListener("change", showTask);
key.addEventListener("change", listModels);
get("example").addEventListener("click", showExample);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
listModels();
