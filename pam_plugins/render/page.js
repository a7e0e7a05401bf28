/* The page at work: reads the pictures' JSON, shows one at a time and lights up what is pointed at. */
const NAMES = { en: "EN", zh: "中文" };
const TASKS = ["explanation", "brief", "detailed", "text"];
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const parse = (node) => JSON.parse(node.textContent);
const run = parse($("run"));
const entries = [...document.querySelectorAll("script[data-entry]")].map(parse);
const records = [...document.querySelectorAll("script[data-picture]")];
const languages = run.languages.slice().sort((a, b) => rank(a) - rank(b));
let language = languages.includes("en") || !languages.length ? "en" : languages[0];
let current = 0;
let picture = null;
let pinned = null;
let lit = null;
let open = new Set();
let cards = [];
let paths = [];

function rank(code) { return code === "en" ? 0 : code === "zh" ? 1 : 2; }
function words() { return WORDS[language] || WORDS.en; }
function percent(value) {
  const p = value * 100;
  return p > 0 && p < 1 ? `${p.toFixed(1)}%` : `${Math.round(p)}%`;
}
function time(seconds) {
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
}
function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}
function draw(tag, attributes, parent) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

/* The words for a task in the chosen language, or else in whichever there is, with that language's code. */
function answer(region, task) {
  const texts = region.texts[task];
  if (!texts) return null;
  const found = language in texts ? language : Object.keys(texts).sort((a, b) => rank(a) - rank(b))[0];
  return found === undefined ? null : { text: texts[found], language: found };
}
function say(node, said, tagged = true) {
  node.append(said.text);
  if (said.language === language || !tagged) return node;
  node.lang = said.language;
  node.append(" ", make("span", "tag", NAMES[said.language] || said.language));
  return node;
}
function labelOf(region) {
  const said = answer(region, "label");
  return said && said.text.trim() ? said : null;
}

function showPicture(index, focus) {
  current = index;
  picture = records[index] ? parse(records[index]) : null;
  pinned = lit = null;
  const regions = picture ? picture.regions : [];
  open = new Set(regions.length <= 3 ? regions.keys() : [0]);
  [...$("strip").children].forEach((thumb, i) => {
    thumb.tabIndex = i === index ? 0 : -1;
    if (i === index) thumb.setAttribute("aria-current", "true"); else thumb.removeAttribute("aria-current");
  });
  const thumb = $("strip").children[index];
  if (thumb) {
    if (focus) thumb.focus({ preventScroll: true });
    thumb.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  if (location.hash !== "#regions") try { history.replaceState(null, "", `#${index + 1}`); } catch { /* not here */ }
  showStage();
  showWords();
  $("regions").scrollTop = 0;
}

function showStage() {
  const frame = $("frame"), drawing = $("drawing"), badges = $("badges"), shape = $("view").style;
  drawing.replaceChildren();
  badges.replaceChildren();
  frame.querySelector(".nothing")?.remove();
  paths = [];
  const [width, height] = picture ? picture.canvas : [0, 0];
  $("photo").hidden = !width;
  $("layout").classList.toggle("many", Boolean(picture) && picture.regions.length > 8);
  if (!width) {
    shape.setProperty("--ratio", 3);
    shape.removeProperty("--most");
    frame.append(make("p", "nothing", words().blank));
    return;
  }
  $("photo").src = picture.photo;
  shape.setProperty("--ratio", width / height);
  shape.setProperty("--most", `${Math.max(width * 2.5, 200)}px`);
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const order = [...picture.regions.keys()].sort((a, b) => area(b) - area(a));
  for (const i of order) { /* the smallest last, so that it is on top and gets the pointer */
    const { path, colour } = picture.regions[i];
    if (!path) continue;
    paths[i] = draw("path", { d: path, class: "region", "data-region": i }, drawing);
    paths[i].style.setProperty("--c", colour);
  }
  draw("path", { class: "veil", id: "veil" }, drawing);
  draw("path", { class: "edge", id: "edge" }, drawing);
  picture.regions.forEach((shown, i) => {
    drawPrompt(shown, i, drawing, badges, width, height);
    if (!shown.at) return;
    const badge = make("span", "badge", i + 1);
    badge.style.setProperty("--c", shown.colour);
    place(badge, shown.at[0] / width, shown.at[1] / height);
    badges.append(badge);
  });
}
function area(i) { return picture.regions[i].region.area; }
function place(node, x, y) {
  node.style.left = `${x * 100}%`;
  node.style.top = `${y * 100}%`;
}
function drawPrompt({ region, colour }, i, drawing, badges, width, height) {
  const prompt = region.prompt;
  if (!prompt) return;
  const sx = width / picture.width, sy = height / picture.height;
  if (prompt.box) {
    const [x1, y1, x2, y2] = prompt.box;
    const group = draw("g", { class: "prompt", "data-of": i }, drawing);
    const box = { class: "box", x: x1 * sx, y: y1 * sy, width: (x2 - x1) * sx, height: (y2 - y1) * sy };
    draw("rect", { ...box, "vector-effect": "non-scaling-stroke" }, group).style.setProperty("--c", colour);
  }
  for (const [x, y, wanted] of prompt.points || []) {
    const dot = make("span", "dot prompt");
    dot.dataset.of = i;
    dot.style.setProperty("--d", wanted ? run.prompt.foreground : run.prompt.background);
    place(dot, x / picture.width, y / picture.height);
    badges.append(dot);
  }
}

function showWords() {
  const w = words();
  document.documentElement.lang = language;
  $("title").textContent = w.title(run.pictures, run.regions);
  document.title = w.title(run.pictures, run.regions);
  const notes = [];
  if (run.shown < run.pictures) notes.push(w.rest(run.shown, run.pictures));
  if (run.failed) notes.push(w.failed(run.failed));
  $("notice").textContent = notes.join(" ");
  $("notice").hidden = !notes.length;
  $("masks").textContent = w.masks;
  $("skip").textContent = w.skip;
  $("strip").setAttribute("aria-label", w.pictures);
  $("regions").setAttribute("aria-label", w.regions);
  $("caution").textContent = w.caution;
  $("keys").replaceChildren();
  [["←", "→"], ["Tab"], ["M"]].forEach((keys, i) => {
    if (i === 0 && entries.length < 2) return;
    const hint = make("span");
    for (const key of keys) hint.append(make("kbd", "", key));
    hint.append(` ${w.keys[i]}`);
    $("keys").append(hint);
  });
  [...$("strip").children].forEach((thumb, i) => {
    const state = entries[i].failed ? w.failure : w.count(entries[i].regions);
    thumb.setAttribute("aria-label", `${entries[i].image}, ${w.of(i + 1, entries.length)}, ${state}`);
  });
  for (const button of $("languages").children)
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  const list = $("regions");
  const kept = list.scrollTop;
  list.replaceChildren();
  cards = [];
  document.querySelector(".model").hidden = !picture;
  if (!picture) {
    list.append(make("p", "empty", w.nothing));
    return;
  }
  $("by").textContent = w.by;
  $("model-name").textContent = picture.model.name;
  $("revision").textContent = picture.model.revision;
  $("description").textContent = picture.model.description;
  $("name").textContent = picture.image;
  const facts = picture.width ? [`${picture.width} × ${picture.height}`] : [];
  for (const [phase, took] of Object.entries(picture.seconds)) facts.push(`${w.phases[phase] || phase} ${time(took)}`);
  $("facts").textContent = facts.join(" · ");
  $("photo").alt = `${picture.image}: ${picture.regions.map((r) => labelOf(r.region)?.text || w.unnamed).join(", ")}`;
  if (picture.error !== null) {
    const failure = make("div", "failure");
    failure.append(make("h2", "", w.failure), picture.error);
    list.append(failure);
  } else if (!picture.regions.length) list.append(make("p", "empty", w.nothing));
  picture.regions.forEach((shown, i) => list.append((cards[i] = card(shown, i))));
  list.scrollTop = kept;
  light(lit);
}

function card({ region, colour }, i) {
  const w = words();
  const node = make("article", "card");
  node.style.setProperty("--c", colour);
  node.dataset.region = i;
  const head = make("button", "head");
  head.type = "button";
  head.append(make("span", "swatch", i + 1));
  const label = labelOf(region);
  head.append(label ? say(make("span", "label"), label) : make("span", "label none", w.unnamed));
  const sure = region.scores.label;
  if (sure !== undefined) {
    const score = make("span", "score", percent(sure));
    score.title = w.score(percent(sure));
    score.append(make("i"));
    score.style.setProperty("--p", percent(sure));
    head.append(score);
  }
  node.append(head);
  const brief = answer(region, "brief");
  const lead = brief || answer(region, "explanation");
  if (lead) node.append(say(make("p", "lead"), lead));
  node.append(details(region, brief ? "brief" : "explanation"));
  const more = node.lastChild;
  const update = () => {
    more.hidden = !open.has(i);
    head.setAttribute("aria-expanded", String(open.has(i)));
  };
  update();
  head.addEventListener("click", () => {
    if (open.has(i)) open.delete(i); else open.add(i);
    update();
  });
  node.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && light(i));
  node.addEventListener("pointerleave", () => light(pinned));
  node.addEventListener("focusin", () => light(i));
  node.addEventListener("focusout", () => light(pinned));
  node.openUp = () => { open.add(i); update(); };
  return node;
}

function details(region, lead) {
  const w = words();
  const more = make("div", "more");
  const list = make("dl");
  const tasks = [...TASKS, ...Object.keys(region.texts).filter((task) => !TASKS.includes(task))];
  for (const task of tasks) {
    const said = task === lead || task === "label" ? null : answer(region, task);
    if (!said) continue;
    const group = make("div");
    const value = make("dd", task === "text" && said.text ? "seen" : "");
    group.append(make("dt", "", TASKS.includes(task) ? w[task] : task), value);
    if (said.text) say(value, said, task !== "text"); /* what is written there is in its own language */
    else value.textContent = task === "text" ? w.noText : "—";
    list.append(group);
  }
  if (list.children.length) more.append(list);
  const facts = [];
  if (region.predicted_iou !== null) facts.push(`${w.mask} ${region.predicted_iou.toFixed(2)}`);
  if (region.stability !== null) facts.push(`${w.stable} ${region.stability.toFixed(2)}`);
  if (region.track_id !== null) facts.push(`#${region.track_id}`);
  facts.push(w.area(percent(region.area / Math.max(1, picture.width * picture.height))));
  const foot = make("div", "foot");
  const copy = make("button", "", w.copy);
  copy.type = "button";
  copy.addEventListener("click", async () => {
    const said = (await copied(JSON.stringify(region, null, 2))) ? words().copied : words().notCopied;
    copy.textContent = $("said").textContent = said;
    setTimeout(() => { copy.textContent = words().copy; $("said").textContent = ""; }, 1600);
  });
  foot.append(make("span", "", facts.join(" · ")), copy);
  more.append(foot);
  return more;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { /* browsers that keep the clipboard from local files: the older way */ }
  const area = make("textarea", "unseen");
  const focused = document.activeElement;
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

/* Light up one region and its card, or none. */
function light(i) {
  lit = i;
  const shown = i === null || !picture ? null : picture.regions[i];
  const path = shown && shown.path;
  $("frame").classList.toggle("lit", Boolean(path));
  cards.forEach((node, at) => node.classList.toggle("on", at === i));
  paths.forEach((node, at) => node.classList.toggle("on", at === i));
  for (const node of $("frame").querySelectorAll(".prompt")) node.classList.toggle("on", Number(node.dataset.of) === i);
  $("chip").hidden = !path;
  if (!path) return;
  const [width, height] = picture.canvas;
  $("veil").setAttribute("d", `M0 0H${width}V${height}H0Z${path}`);
  $("edge").setAttribute("d", path);
  $("edge").style.setProperty("--c", shown.colour);
  const chip = $("chip"), said = labelOf(shown.region), sure = shown.region.scores.label;
  chip.textContent = (said ? said.text : words().unnamed) + (sure === undefined ? "" : ` ${percent(sure)}`);
  chip.style.setProperty("--c", shown.colour);
  const [x1, y1, x2, y2] = shown.region.box, frame = $("frame");
  const sx = frame.clientWidth / picture.width, sy = frame.clientHeight / picture.height;
  const left = ((x1 + x2) / 2) * sx - chip.offsetWidth / 2;
  const above = y1 * sy - chip.offsetHeight - 8;
  const top = above >= 6 ? above : y2 * sy + chip.offsetHeight + 14 < frame.clientHeight ? y2 * sy + 8 : y1 * sy + 8;
  chip.style.left = `${Math.max(6, Math.min(left, frame.clientWidth - chip.offsetWidth - 6))}px`;
  chip.style.top = `${Math.max(6, top)}px`;
}

function under(event) {
  const path = event.target.closest?.("path.region");
  return path ? Number(path.dataset.region) : null;
}
$("drawing").addEventListener("pointermove", (event) => {
  const i = under(event) ?? pinned;
  if (event.pointerType !== "mouse" || i === lit) return;
  light(i);
  if (i !== null) cards[i].scrollIntoView({ block: "nearest" });
});
$("drawing").addEventListener("pointerleave", (event) => event.pointerType === "mouse" && light(pinned));
$("drawing").addEventListener("click", (event) => {
  const i = under(event);
  pinned = i === pinned ? null : i;
  light(pinned);
  if (i === null) return;
  cards[i].openUp();
  cards[i].scrollIntoView({ block: "nearest", behavior: "smooth" });
});
function toggleMasks() {
  const on = $("masks").getAttribute("aria-pressed") !== "true";
  $("masks").setAttribute("aria-pressed", String(on));
  $("frame").classList.toggle("plain", !on);
}
$("masks").addEventListener("click", toggleMasks);
addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && entries.length > 1) {
    event.preventDefault();
    const focused = document.activeElement;
    const inStrip = $("strip").contains(focused), inRegions = $("regions").contains(focused);
    showPicture(Math.min(entries.length - 1, Math.max(0, current + step)), inStrip);
    if (inRegions) $("regions").focus({ preventScroll: true });
    $("said").textContent = $("strip").children[current].getAttribute("aria-label");
  } else if (event.key === "Escape") {
    pinned = null;
    light(null);
  } else if (event.key === "m" || event.key === "M") toggleMasks();
});
addEventListener("resize", () => light(lit));

entries.forEach((entry, i) => {
  const thumb = make("button", "thumb");
  thumb.type = "button";
  thumb.title = entry.image;
  if (entry.thumbnail) {
    const img = make("img");
    img.alt = "";
    img.loading = "lazy";
    img.src = entry.thumbnail;
    thumb.append(img);
  } else thumb.append(make("span", "blank", entry.failed ? "!" : ""));
  thumb.addEventListener("click", () => showPicture(i));
  $("strip").append(thumb);
});
$("strip").hidden = entries.length < 2;
for (const code of languages.length > 1 ? languages : []) {
  const button = make("button", "", NAMES[code] || code);
  button.type = "button";
  button.lang = code;
  button.dataset.language = code;
  button.addEventListener("click", () => { language = code; showWords(); });
  $("languages").append(button);
}
$("languages").hidden = languages.length < 2;
document.documentElement.style.setProperty("--on-colour", run.ink);
const wanted = Number(location.hash.slice(1)) - 1;
showPicture(wanted > 0 && wanted < entries.length ? wanted : 0);
