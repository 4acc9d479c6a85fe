// The page of honed: jobs, and one job with its stages, curves, events and log.
//
// It speaks to the daemon as any client does (docs/PROTOCOL.md: JSON over HTTP, streams as
// Server-Sent Events) with the token that its user gives; it keeps nothing but that, until
// the tab is closed. What comes from the daemon is shown as text, never as markup.
"use strict";

const POLL_MS = 2000, RETRY_MS = 1500, POINTS_MAX = 2000, LOG_MAX = 200000, EVENTS_MAX = 500;
const CURVES = ["loss", "reward", "kl", "accuracy", "top1_accuracy", "nll", "ece", "grad_norm",
                "tokens_per_second"];
const $ = id => document.getElementById(id);
let unreachable = false; // what is said at the top goes by itself
let open = null; // the job that is shown: {id, abort, curves, seen, timer}

// ---- the daemon ----

class Refused extends Error {
    constructor(status, said) {
        super(said.mend ? `${said.message} – try: ${said.mend}` : said.message);
        this.status = status;
    }
}

async function ask(method, body, signal) {
    const headers = {"Content-Type": "application/json"};
    const token = sessionStorage.getItem("token");

    if (token)
        headers.Authorization = "Bearer " + token;
    const reply = await fetch("/hone.v1.Hone/" + method,
                              {method: "POST", headers, body: JSON.stringify(body), signal});
    if (!reply.ok) {
        const said = await reply.json().catch(() => ({}));
        throw new Refused(reply.status, said.error || {message: "HTTP " + reply.status});
    }
    return reply;
}

const call = async (method, body) => (await ask(method, body || {})).json();

// Calls take(message) for every event until the stream ends: true when it ended well.
async function stream(method, body, signal, take) {
    const reader = (await ask(method, body, signal)).body.getReader();
    const decoder = new TextDecoder();
    let text = "", ended = false;

    for (;;) {
        const {value, done} = await reader.read();
        if (done)
            return ended;
        text += decoder.decode(value, {stream: true});
        for (let at; (at = text.indexOf("\n\n")) >= 0; text = text.slice(at + 2)) {
            const lines = text.slice(0, at).split("\n");
            const of = name => lines.filter(l => l.startsWith(name + ": "))
                                    .map(l => l.slice(name.length + 2)).join("\n");
            if (of("event") === "error")
                throw new Refused(0, JSON.parse(of("data")).error);
            if (of("event") === "end")
                ended = true;
            else if (of("data"))
                take(JSON.parse(of("data")));
        }
    }
}

// ---- words ----

function element(tag, props, ...children) {
    const e = Object.assign(document.createElement(tag), props);

    e.append(...children);
    return e;
}

function duration(s) {
    s = Math.max(0, s);
    return s < 60 ? `${s.toFixed(0)} s` : s < 3600 ? `${(s / 60).toFixed(0)} min`
         : s < 172800 ? `${(s / 3600).toFixed(1)} h` : `${(s / 86400).toFixed(0)} days`;
}

const bytes = n => n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${(n / 1e6).toFixed(0)} MB`;
const figure = x => Math.abs(x) >= 1000 || (x && Math.abs(x) < 0.001)
    ? x.toExponential(2) : String(Number(x.toPrecision(4)));
const clock = t => new Date(t * 1000).toLocaleTimeString();

// ---- all jobs ----

function share(s) {
    const p = s.progress;

    return s.state === "done" || s.state === "skipped" ? 1 : p && p.total > 0 ? p.step / p.total : 0;
}

function bar(s) {
    const fill = element("i");

    fill.style.width = (100 * share(s)).toFixed(1) + "%";
    return element("span", {className: "bar"}, fill);
}

function stageWords(s) {
    const p = s.progress;

    return s.state === "running" && p
        ? p.total > 0 ? `${p.phase} ${p.step}/${p.total}` : p.phase : s.state;
}

function jobRow(j) {
    const row = element("tr", {},
        element("td", {}, element("a", {href: "#" + j.id}, String(j.id))),
        element("td", {}, j.name || ""),
        element("td", {className: "state " + j.state}, j.state || ""),
        element("td", {}, ...(j.stages || []).map(s =>
            element("span", {className: "stage " + s.state, title: s.message || ""},
                    `${s.name}: ${stageWords(s)}`, bar(s)))),
        element("td", {}, j.owner || ""),
        element("td", {className: "number"}, String(j.priority || 0)),
        element("td", {}, duration(Date.now() / 1000 - (j.ended || j.submitted))));

    row.onclick = () => { location.hash = "#" + j.id; };
    return row;
}

async function poll() {
    try {
        const s = await call("Status");
        $("status").textContent = `${s.program}, up ${duration(s.up)}; ${s.running || 0} running, ` +
            `${s.queued || 0} queued, ${s.paused || 0} paused; cores ${s.cores_used || 0} of ${s.cores}` +
            (s.gpus ? `, GPUs ${s.gpus_used || 0} of ${s.gpus}` : "") +
            `, memory ${bytes(s.memory_used || 0)} of ${bytes(s.memory)} planned`;
        if (!open) {
            const jobs = (await call("List", {limit: 100})).jobs || [];
            $("jobs").replaceChildren(...jobs.map(jobRow));
            $("empty").hidden = jobs.length > 0;
        }
        connected(true);
    } catch (e) {
        failed(e);
    }
}

function connected(yes) {
    $("login").hidden = yes;
    $("forget").hidden = !yes || !sessionStorage.getItem("token");
    if (yes && unreachable)
        say("");
    $("list").hidden = !yes || open !== null;
    $("job").hidden = !yes || open === null;
}

function failed(e) {
    if (e.name === "AbortError")
        return;
    if (e.status === 401)
        connected(false);
    if (e.status === 401 && !sessionStorage.getItem("token"))
        say("");
    else if (e.status === undefined)
        say("the daemon does not answer; trying again", true);
    else
        say(e.message, e.status === 401);
}

// passing: it goes by itself once the daemon answers.
function say(text, passing) {
    unreachable = Boolean(passing);
    $("error").textContent = text;
    $("error").hidden = !text;
}

// ---- one job ----

function showStages(j) {
    $("stages").replaceChildren(...(j.stages || []).map(s => {
        const words = [stageWords(s)];
        if (s.attempt > 1) words.push(`attempt ${s.attempt}`);
        if (s.started) words.push(duration((s.ended || Date.now() / 1000) - s.started));
        if (s.gpus && s.gpus.length) words.push(`GPU ${s.gpus.join(", ")}`);
        else if (s.cores && s.cores.length) words.push(`core ${s.cores.join(", ")}`);
        const card = element("div", {className: "card " + s.state},
            element("span", {className: "state"}, s.name), " ", words.join(" · "), bar(s));
        for (const r of s.ranks || [])
            card.append(element("p", {}, `rank ${r.rank} on ${r.host || "?"} (${r.pid || "?"}): ` +
                `${r.phase || "start"}, step ${r.step}, heard ${duration(r.heard || 0)} ago`));
        if (s.message) card.append(element("p", {}, s.message));
        if (s.mend) card.append(element("p", {}, "try: " + s.mend));
        return card;
    }));
}

function showJob(j) {
    const ended = ["done", "failed", "stopped"].includes(j.state);
    const can = {Pause: !ended && j.state !== "paused", Resume: j.state === "paused",
                 Checkpoint: j.state === "running", Cancel: !ended, Retry: ended && j.state !== "done"};

    $("title").replaceChildren(`${j.id} ${j.name || ""} `,
        element("span", {className: "state " + j.state}, j.state || ""));
    $("message").textContent = [j.message, j.mend && "try: " + j.mend, j.run].filter(Boolean).join(" – ");
    $("actions").replaceChildren(...Object.keys(can).filter(k => can[k]).map(k =>
        element("button", {onclick: () => act(k, j)}, k.toLowerCase())));
    showStages(j);
}

async function act(method, j) {
    if (method === "Cancel" && !confirm(`Stop job ${j.id} for good? It saves a checkpoint first.`))
        return;
    try {
        const reply = await call(method, {id: j.id});
        if (open && reply.id === open.id)
            showJob(reply);
    } catch (e) {
        failed(e);
    }
}

function addPoint(job, stage, line) {
    let point;
    try { point = JSON.parse(line); } catch { return; }
    for (const name of CURVES) {
        if (typeof point[name] !== "number" || point.split === "test")
            continue;
        const key = stage + " " + name, split = point.split === "train" ? "train" : "validation";
        const curve = job.curves.get(key) || {train: new Map(), validation: new Map()};
        job.curves.set(key, curve);
        curve[split].set(point.step, point[name]); // a step that was repeated stands once
    }
}

function polyline(points, split, box) {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const x = s => 300 * (s - box.from) / (box.to - box.from || 1);
    const y = v => 97 - 94 * (v - box.low) / (box.high - box.low || 1);
    const every = Math.ceil(points.length / POINTS_MAX);

    line.setAttribute("class", split);
    line.setAttribute("points", points.filter((_, i) => i % every === 0 || i === points.length - 1)
        .map(([s, v]) => `${x(s).toFixed(1)},${y(v).toFixed(1)}`).join(" "));
    return line;
}

function chart(key, curve) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const sorted = split => [...curve[split]].sort((a, b) => a[0] - b[0]);
    const train = sorted("train"), check = sorted("validation"), all = train.concat(check);
    const box = {from: Infinity, to: -Infinity, low: Infinity, high: -Infinity};

    for (const [s, v] of all) {
        box.from = Math.min(box.from, s); box.to = Math.max(box.to, s);
        box.low = Math.min(box.low, v); box.high = Math.max(box.high, v);
    }
    svg.setAttribute("viewBox", "0 0 300 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${key}: ${figure(box.low)} to ${figure(box.high)}`);
    const last = element("span");
    for (const [split, points] of [["train", train], ["validation", check]]) {
        if (!points.length)
            continue;
        svg.append(polyline(points, split, box));
        last.append(element("i", {className: "key " + split}), figure(points[points.length - 1][1]));
    }
    return element("figure", {},
        element("figcaption", {}, element("b", {}, key), last),
        svg,
        element("figcaption", {}, element("span", {}, `${figure(box.low)} to ${figure(box.high)}`),
                element("span", {}, `steps ${box.from} to ${box.to}`)));
}

function drawSoon(job) {
    if (job.timer)
        return;
    job.timer = setTimeout(() => {
        job.timer = 0;
        if (open === job)
            $("charts").replaceChildren(...[...job.curves].map(([k, c]) => chart(k, c)));
    }, 300);
}

function addEvent(job, e) {
    if (e.seq)
        job.seen = e.seq;
    if (e.job_state)
        showJob(e.job_state);
    else if (e.metric) {
        addPoint(job, e.stage, e.metric);
        drawSoon(job);
    }
    const text = e.note ? e.note.text : e.gap ? `${e.gap} points were dropped on the way` : "";
    if (!text)
        return;
    $("events").prepend(element("li", {className: e.note ? e.note.level : "warning"},
        element("time", {}, clock(e.time)), (e.stage ? e.stage + ": " : "") + text));
    while ($("events").children.length > EVENTS_MAX)
        $("events").lastChild.remove();
}

// Streams that break are taken up where they ended.
async function follow(job, method, body, take, again) {
    while (open === job) {
        try {
            if (await stream(method, body(), job.abort.signal, take))
                return;
        } catch (e) {
            failed(e);
            if (e.status >= 400 && e.status < 500)
                return;
        }
        if (!again)
            return;
        await new Promise(r => setTimeout(r, RETRY_MS));
    }
}

function addLog(job, chunk) {
    const log = $("log"), atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;

    job.logged = chunk.next;
    log.append(chunk.text);
    if (log.textContent.length > LOG_MAX)
        log.textContent = log.textContent.slice(-LOG_MAX / 2);
    if (atEnd)
        log.scrollTop = log.scrollHeight;
}

async function openJob(id) {
    const job = {id, abort: new AbortController(), curves: new Map(), seen: undefined, logged: -20000, timer: 0};

    open = job;
    for (const part of ["title", "message", "actions", "stages", "charts", "events", "log"])
        $(part).replaceChildren();
    connected(true);
    try {
        const now = await call("GetJob", {id});
        if (open !== job)
            return;
        job.seen = now.last_seq || 0;
        showJob(now);
        $("log").textContent = "";
        follow(job, "Logs", () => ({id, offset: job.logged, follow: true}), c => addLog(job, c), true);
        await follow(job, "Metrics", () => ({id}), c => {
            c.lines.split("\n").forEach(l => l && addPoint(job, c.stage, l));
            drawSoon(job);
        }, false);
        await follow(job, "Watch", () => ({id, after: job.seen}), e => addEvent(job, e), true);
    } catch (e) {
        failed(e);
    }
}

function route() {
    const id = Number(location.hash.slice(1));

    if (open)
        open.abort.abort();
    open = null;
    say("");
    if (Number.isInteger(id) && id > 0)
        openJob(id);
    else
        poll();
}

$("login").onsubmit = event => {
    event.preventDefault();
    sessionStorage.setItem("token", $("token").value.trim());
    $("token").value = "";
    route();
};
$("forget").onclick = () => {
    sessionStorage.removeItem("token");
    location.hash = "#";
    location.reload();
};
window.onhashchange = route;
setInterval(poll, POLL_MS);
route();
