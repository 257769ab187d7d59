// The page. The API key comes in the link's fragment or is asked for; it stays in
// sessionStorage and travels in a header only, so events are read by fetch.
const $ = (id) => document.getElementById(id);

function takeKey() {
  const fromLink = new URLSearchParams(location.hash.slice(1)).get("key");
  if (fromLink) {
    sessionStorage.setItem("key", fromLink);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("key");
}

let asking = null; // one dialog for all the calls that wait for a key

function askForKey() {
  asking ??= new Promise((resolve) => {
    $("login").addEventListener("close", () => {
      sessionStorage.setItem("key", $("key").value.trim());
      $("key").value = "";
      asking = null;
      resolve();
    }, { once: true });
    $("login").showModal();
  });
  return asking;
}

async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const answer = await fetch(path, { ...options, headers: { ...options.headers, Authorization: "Bearer " + key } });
  if (answer.status === 401) {
    if (sessionStorage.getItem("key") === key) sessionStorage.removeItem("key");
    if (!sessionStorage.getItem("key")) await askForKey();
    return call(path, options);
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `${path}: HTTP ${answer.status}`);
  }
  return answer;
}

const getJSON = async (path) => (await call(path)).json();
const postJSON = async (path, body) =>
  (await call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

function show(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

// guard runs an action and shows what goes wrong.
function guard(action) {
  return async (...args) => {
    $("problem").hidden = true;
    try { await action(...args); } catch (error) { show(error); }
  };
}

function fill(select, items, value, label = value) {
  const before = select.value;
  select.replaceChildren(...items.map((item) => new Option(label(item), value(item))));
  if ([...select.options].some((o) => o.value === before)) select.value = before;
}

// accept wires a drop zone with its file input.
function accept(zone, input, action) {
  const take = guard(action);
  zone.addEventListener("dragover", (e) => { e.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (e) => {
    e.preventDefault();
    zone.classList.remove("over");
    if (e.dataTransfer.files[0]) take(e.dataTransfer.files[0]);
  });
  zone.addEventListener("keydown", (e) => { if (e.key === "Enter") input.click(); });
  input.addEventListener("change", () => { if (input.files[0]) take(input.files[0]); input.value = ""; });
}

// --- 1 images ---

// upload sends the zip by XMLHttpRequest, the one way to see an upload's progress.
function upload(file) {
  const name = file.name.replace(/\.zip$/i, "").replace(/[^A-Za-z0-9._-]+/g, "-");
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", "/v1/datasets?name=" + encodeURIComponent(name));
    xhr.setRequestHeader("Authorization", "Bearer " + sessionStorage.getItem("key"));
    xhr.setRequestHeader("Content-Type", "application/zip");
    xhr.upload.onprogress = (e) => { $("uploading").value = e.loaded / e.total; };
    xhr.onload = () => {
      const body = JSON.parse(xhr.responseText || "null");
      xhr.status < 300 ? resolve(body) : reject(new Error(body?.error?.message ?? `upload: HTTP ${xhr.status}`));
    };
    xhr.onerror = () => reject(new Error("the upload broke off"));
    xhr.send(file);
  });
}

async function addZip(file) {
  $("uploading").hidden = false;
  try {
    const made = await upload(file);
    await loadDatasets();
    $("dataset").value = made.name;
    await showDataset();
  } finally {
    $("uploading").hidden = true;
  }
}

async function thumbnail(dataset, item) {
  const image = document.createElement("img");
  image.alt = item.path;
  image.title = item.path;
  const answer = await call(`/v1/datasets/${encodeURIComponent(dataset)}/images/${item.sha256}?size=72`);
  image.src = URL.createObjectURL(await answer.blob());
  return image;
}

// told is what a data set says of an item: captions, or a question with its answers.
const told = (item) => item.question ? `${item.question} ${(item.answers ?? []).join(", ")}` : (item.captions ?? []).join(" / ");

async function showItem(dataset, item) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = told(item);
  figure.append(await thumbnail(dataset, item), caption);
  return figure;
}

const contents = { classes: "in classes", captions: "with captions", questions: "with questions", pictures: "without texts" };

async function showDataset() {
  const name = $("dataset").value;
  if (!name) return;
  const { kind, images, sizes, classes, items } = await getJSON(`/v1/datasets/${encodeURIComponent(name)}?samples=6`);
  $("contents").textContent = `${images} images ${contents[kind]}: ${sizes.train} to learn from, ${sizes.test} to score on`;
  $("shotsof").textContent = kind === "classes" ? "Images a class" : "Images";
  offerRecipes(kind);
  $("items").replaceChildren(...await Promise.all(items.map((item) => showItem(name, item))));
  const blocks = await Promise.all(classes.map(async (c) => {
    const block = document.createElement("div");
    block.className = "class";
    const title = document.createElement("h3");
    title.textContent = c.name + " ";
    const count = document.createElement("span");
    count.textContent = `${c.count} images`;
    title.append(count);
    const thumbs = document.createElement("div");
    thumbs.className = "thumbs";
    thumbs.append(...await Promise.all(c.samples.map((item) => thumbnail(name, item))));
    block.append(title, thumbs);
    return block;
  }));
  $("classes").replaceChildren(...blocks);
}

// --- 2 tune ---

let recipes = [], bundles = [];

// what recipes of a method are for: the kind of model, and the kinds of data sets that they learn from.
function use({ method }) {
  if (method.startsWith("caption-")) return { model: "captioner", data: ["captions", "questions"] };
  if (["textual-inversion", "style", "negative"].includes(method)) return { model: "diffusion", data: ["pictures", "captions", "questions", "classes"] };
  return { model: "dual-encoder", data: ["classes"] };
}

// offerRecipes offers those that learn from a kind of data set, and the models that the chosen one is for.
function offerRecipes(kind) {
  fill($("recipe"), recipes.filter((r) => use(r).data.includes(kind)), byName);
  offerModels();
}

function offerModels() {
  const recipe = recipes.find((r) => r.name === $("recipe").value);
  fill($("bundle"), recipe ? bundles.filter((b) => b.kind === use(recipe).model) : bundles, byName);
}

function plot(canvas, points, floor, ceiling) {
  const g = canvas.getContext("2d");
  g.clearRect(0, 0, canvas.width, canvas.height);
  if (points.length === 0) return;
  const top = ceiling ?? Math.max(...points.map((p) => p.y)) * 1.05;
  const last = Math.max(points.at(-1).x, 1);
  const x = (p) => 34 + (canvas.width - 44) * p.x / last;
  const y = (p) => canvas.height - 18 - (canvas.height - 28) * (p.y - floor) / (top - floor || 1);
  g.font = "11px system-ui";
  g.fillStyle = "#667085";
  g.fillText(top.toFixed(2), 4, 14);
  g.fillText(floor.toFixed(2), 4, canvas.height - 18);
  g.fillText(`step ${points.at(-1).x}`, canvas.width - 60, canvas.height - 4);
  g.strokeStyle = "#2459c8";
  g.lineWidth = 1.6;
  g.beginPath();
  points.forEach((p, i) => (i ? g.lineTo(x(p), y(p)) : g.moveTo(x(p), y(p))));
  g.stroke();
}

// eventsOf yields an answer's server-sent events as { event, data }; data that is no JSON stays a text.
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split("\n").filter((l) => l.startsWith(name + ":")).map((l) => l.slice(name.length + 1).trim()).join("\n");
      const data = field("data");
      if (data) yield { event: field("event"), data: data.startsWith("{") ? JSON.parse(data) : data };
    }
  }
}

const events = async (run) => eventsOf(await call(`/v1/runs/${run}/events`));

// streamed posts JSON and yields the answer's events; one that tells an error is thrown.
async function* streamed(path, body, signal) {
  const answer = await call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...body, stream: true }), signal });
  for await (const e of eventsOf(answer)) {
    if (e.data.error) throw new Error(e.data.error.message);
    yield e;
  }
}

// choose takes an entry of a list, where it is there.
function choose(select, value) {
  if ([...select.options].some((o) => o.value === value)) select.value = value;
}

const percent = (x) => (100 * x).toFixed(1) + " %";

// scored is a classifier's accuracy, or what else a prompt is measured by.
const scored = (score) => score.others
  ? Object.entries(score.others).map(([name, x]) => `${name.replaceAll("_", " ")} ${x.toFixed(3)}`).join(", ")
  : percent(score.accuracy);

async function watch(run) {
  const loss = [], accuracy = [];
  for await (const { event, data } of await events(run)) {
    if (event === "step") {
      loss.push({ x: data.step, y: data.loss });
      accuracy.push({ x: data.step, y: data.accuracy });
      plot($("loss"), loss, 0);
      plot($("accuracy"), accuracy, 0, 1);
      $("status").textContent = `step ${data.step} of ${data.total_steps}, about ${Math.ceil(data.seconds_left)} s left`;
    } else if (event === "state") {
      $("status").textContent = data.error ? `${data.state}: ${data.error}` : data.state;
    }
  }
  return getJSON(`/v1/runs/${run}`);
}

async function tune() {
  $("start").disabled = true;
  $("score").hidden = true;
  try {
    const run = await postJSON("/v1/runs", {
      dataset: $("dataset").value, bundle: $("bundle").value, recipe: $("recipe").value, shots: Number($("shots").value),
    });
    $("cancel").hidden = false;
    $("cancel").onclick = guard(() => postJSON(`/v1/runs/${run.id}/cancel`, {}));
    const ended = await watch(run.id);
    $("status").textContent = ended.error ? `${ended.state}: ${ended.error}` : ended.state;
    await loadModels();
    for (const list of ["prompt", "teller"]) choose($(list), ended.prompt);
    if (ended.metrics?.tuned) {
      $("zeroshot").textContent = ended.metrics.zero_shot ? scored(ended.metrics.zero_shot) : "says nothing";
      $("tuned").textContent = scored(ended.metrics.tuned);
      $("score").hidden = false;
    }
  } finally {
    $("start").disabled = false;
    $("cancel").hidden = true;
  }
}

// --- 3 try ---

function answers(list, scores) {
  list.replaceChildren(...scores.slice(0, 5).map((s) => {
    const line = document.createElement("li");
    line.textContent = `${s.class}  ${percent(s.probability)}`;
    return line;
  }));
}

async function classify(file) {
  $("preview").src = URL.createObjectURL(file);
  $("preview").hidden = false;
  const ask = async (fields) => {
    const form = new FormData();
    form.append("image", file);
    for (const [k, v] of Object.entries(fields)) form.append(k, v);
    return (await call("/v1/classify", { method: "POST", body: form })).json();
  };
  const prompt = $("prompt").value;
  if (!prompt) throw new Error("tune a prompt first, or choose one");
  const tuned = await ask({ prompt });
  answers($("conditioned"), tuned.scores);
  const plain = await ask({ bundle: tuned.bundle, classes: JSON.stringify(tuned.scores.map((s) => s.class)) });
  answers($("plain"), plain.scores);
}

// --- 4 search ---

async function search() {
  const dataset = $("dataset").value;
  const encoders = bundles.filter((b) => b.kind === "dual-encoder").map(byName);
  const bundle = encoders.includes($("bundle").value) ? $("bundle").value : encoders[0];
  const request = { dataset, query: $("query").value, limit: 12, bundle };
  if ($("withprompt").checked && $("prompt").value) request.prompt = $("prompt").value;
  const { hits } = await postJSON("/v1/search", request);
  $("hits").replaceChildren(...await Promise.all(hits.map(async (hit) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = hit.score.toFixed(3);
    figure.append(await thumbnail(dataset, hit), caption);
    return figure;
  })));
}

// --- 5 caption and ask ---

let picture = null; // the image that is asked about, as a data URL

const dataURL = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(new Error(`${file.name} can't be read`));
  reader.readAsDataURL(file);
});

async function ask() {
  if (!picture) throw new Error("drop an image first");
  const content = [{ type: "image_url", image_url: { url: picture } }];
  if ($("question").value.trim()) content.push({ type: "text", text: $("question").value.trim() });
  $("told").textContent = "";
  $("told").dataset.state = "telling";
  for await (const { data } of streamed("/v1/chat/completions", { model: $("teller").value, messages: [{ role: "user", content }] })) {
    $("told").textContent += data.choices?.[0]?.delta.content ?? "";
  }
  $("told").dataset.state = "told";
}

async function takePicture(file) {
  picture = await dataURL(file);
  $("asked").src = picture;
  $("asked").hidden = false;
  await ask();
}

// --- 6 generate ---

// place makes a seed's place in the grid. A click on its picture takes the seed.
function place(seed) {
  const figure = document.createElement("figure");
  const button = document.createElement("button");
  const image = document.createElement("img");
  const caption = document.createElement("figcaption");
  button.type = "button";
  button.title = "draw this seed alone";
  button.append(image);
  button.addEventListener("click", () => { $("seed").value = seed; $("count").value = 1; });
  image.alt = `seed ${seed}`;
  caption.textContent = `seed ${seed}`;
  figure.append(button, caption);
  return figure;
}

async function draw() {
  const seed = Number($("seed").value), n = Number($("count").value), steps = Number($("steps").value);
  const places = Array.from({ length: n }, (_, i) => place(seed + i));
  $("grid").replaceChildren(...places);
  const halt = new AbortController();
  $("halt").onclick = () => halt.abort();
  $("go").disabled = true;
  $("halt").hidden = $("drawing").hidden = false;
  $("drawing").value = 0;
  const request = {
    model: $("painter").value, prompt: $("words").value, n, seed, partial_images: 2, progress: true,
    prompts: [...$("concepts").selectedOptions].map((o) => o.value),
  };
  if ($("negative").value) request.negative_prompt = $("negative").value;
  if (steps > 0) request.steps = steps;
  const done = new Array(n).fill(0);
  try {
    for await (const { event, data } of streamed("/v1/images/generations", request, halt.signal)) {
      if (event.endsWith(".progress")) {
        done[data.image] = data.step / data.total_steps;
        $("drawing").value = done.reduce((a, b) => a + b, 0) / n;
        continue;
      }
      const image = places[data.image].querySelector("img");
      image.src = "data:image/png;base64," + data.b64_json;
      image.dataset.state = event.endsWith(".completed") ? "done" : "preview";
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  } finally {
    $("go").disabled = false;
    $("halt").hidden = $("drawing").hidden = true;
  }
}

// --- start ---

const byName = (x) => x.name;
const loadDatasets = async () => fill($("dataset"), (await getJSON("/v1/datasets")).data, byName);

async function loadRecipes() {
  recipes = (await getJSON("/v1/recipes")).data;
  fill($("recipe"), recipes, byName);
}

async function loadModels() {
  bundles = (await getJSON("/v1/bundles")).data;
  const prompts = (await getJSON("/v1/prompts")).data;
  const of = (list, ...kinds) => list.filter((x) => kinds.includes(x.kind));
  offerModels();
  fill($("prompt"), of(prompts, "classifier"), byName);
  fill($("teller"), [...of(prompts, "caption"), ...of(bundles, "captioner")], byName);
  fill($("painter"), of(bundles, "diffusion"), byName);
  fill($("concepts"), of(prompts, "concept", "style", "negative"), byName, (p) => `${p.name} (${p.token ?? p.kind})`);
}

accept($("drop"), $("zip"), addZip);
accept($("dropimage"), $("image"), classify);
$("dataset").addEventListener("change", guard(showDataset));
$("recipe").addEventListener("change", offerModels);
$("start").addEventListener("click", guard(tune));
accept($("droppicture"), $("picture"), takePicture);
$("ask").addEventListener("submit", (e) => { e.preventDefault(); guard(ask)(); });
$("draw").addEventListener("submit", (e) => { e.preventDefault(); guard(draw)(); });
$("search").addEventListener("submit", (e) => { e.preventDefault(); guard(search)(); });

guard(async () => {
  if (!takeKey()) await askForKey();
  await Promise.all([loadDatasets(), loadRecipes()]);
  await loadModels(); // the recipes are known by then
  await showDataset();
})();
