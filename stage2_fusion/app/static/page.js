// The element of this page that shows results: <emit-results data-answer="JSON">, and the files behind them.
// A clip plays from the browser's own copy of its file: the server deletes its copy as soon as it is scored.
(() => {
  "use strict";

  // --- files: {path on the server: File} of all uploads of this page ------------------------------------------------

  const files = new Map();
  const spent = new Set();
  const uploading = new Set();  // promises of responses
  const stored = new WeakMap();  // {response: paths}
  const fetchBefore = window.fetch;

  window.fetch = function (input, init) {
    const isUpload = /\/gradio_api\/upload(\?|$)/.test(String(input?.url ?? input)) && init?.body instanceof FormData;
    if (!isUpload) return fetchBefore.apply(this, arguments);
    const sent = upload(input, init);
    uploading.add(sent);
    const done = () => uploading.delete(sent);
    sent.then(done, done);
    return sent;
  };

  const upload = async (input, init) => {
    const body = await withWholeRecording(init.body);
    if (!body) return new Response("Nothing was recorded yet; record for a few seconds.", { status: 400 });
    const response = await fetchBefore.call(window, input, { ...init, body });
    if (response.ok) {
      const paths = await response.clone().json();
      stored.set(response, paths);
      body.getAll("files").forEach((file, i) => files.set(paths[i], file));
    }
    return response;
  };

  // Gradio's recorder sends what MediaRecorder has given when it is stopped. The end, of a short recording everything,
  // comes later: it is sent instead.
  let recorded = null;
  if (window.MediaRecorder) {
    window.MediaRecorder = class extends window.MediaRecorder {
      constructor(...options) {
        super(...options);
        const parts = [];
        this.addEventListener("dataavailable", (event) => parts.push(event.data));
        recorded = new Promise((resolve) => {
          this.addEventListener("stop", () => resolve(new Blob(parts, { type: this.mimeType })));
        });
      }
    };
  }

  const withWholeRecording = async (form) => {
    const [file, ...more] = form.getAll("files");
    const found = /^sample\.(\w+)$/.exec(file?.name ?? "");  // how Gradio names a recording
    if (!recorded || !found || more.length) return form;
    const whole = await recorded;
    if (!await startsWith(whole, file)) return form;
    recorded = null;
    if (!whole.size) return null;
    const body = new FormData();
    body.append("files", new File([whole], `recording.${found[1]}`, { type: whole.type }));
    return body;
  };

  const startsWith = async (whole, part) => {
    const [a, b] = await Promise.all([whole.slice(0, part.size).arrayBuffer(), part.arrayBuffer()]);
    const bytes = new Uint8Array(a);
    return bytes.length === b.byteLength && new Uint8Array(b).every((byte, i) => byte === bytes[i]);
  };

  // Inputs of the Score button: what is on its way is waited for, and a file that the server has scored, and deleted,
  // is sent again.
  window.emitFreshUploads = async (chosen, recording, ...others) => {
    const late = await Promise.allSettled([...uploading]);
    const paths = late.flatMap((sent) => stored.get(sent.value) ?? []);
    const given = [chosen ? [chosen].flat() : [], recording ? [recording] : []].flat();
    const known = new Set(given.map((file) => (file.video ?? file).path));
    const missing = paths.filter((path) => !known.has(path));
    for (const file of given) {
      const data = file.video ?? file;
      if (spent.has(data.path) && files.has(data.path)) {
        const form = new FormData();
        form.append("files", files.get(data.path));
        const response = await window.fetch("gradio_api/upload", { method: "POST", body: form });
        if (response.ok) data.path = (await response.json())[0];
      }
    }
    if (missing.length) {
      const meta = { _type: "gradio.FileData" };
      chosen = [...(chosen ? [chosen].flat() : []), ...missing.map((path) => ({ path, orig_name: files.get(path)?.name, meta }))];
    }
    return [chosen, recording, ...others];
  };

  // --- helpers ------------------------------------------------------------------------------------------------------

  const h = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  const svg = (tag, attributes = {}) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  const clock = (seconds, decimals = 0) => {
    const s = Math.max(0, seconds);
    const rest = decimals ? (s % 60).toFixed(decimals) : String(Math.floor(s % 60));
    return `${Math.floor(s / 60)}:${rest.padStart(decimals ? 3 + decimals : 2, "0")}`;
  };

  const save = (name, type, text) => {
    const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const interpolate = (times, values, t) => {
    if (!times.length) return null;
    let i = times.findIndex((time) => time >= t);
    if (i <= 0) return values[i < 0 ? values.length - 1 : 0];
    const part = (t - times[i - 1]) / (times[i] - times[i - 1] || 1);
    return values[i - 1] + part * (values[i] - values[i - 1]);
  };

  const number = (value, range) => value.toFixed(range[1] - range[0] > 20 ? 0 : range[1] - range[0] > 2 ? 1 : 2);

  // --- what plays: a media element, or, when the browser cannot play the file, the faces on a clock of our own -------

  class MediaClock {
    constructor(element, seconds) {
      this.element = element;
      this.seconds = seconds;
    }
    get time() { return this.element.currentTime; }
    set time(value) { this.element.currentTime = value; }
    get playing() { return !this.element.paused && !this.element.ended; }
    toggle() { this.playing ? this.element.pause() : this.element.play().catch(() => {}); }
  }

  // A recording of a browser does not say how long it is: seeking beyond its end finds out.
  const findDuration = (media) => {
    media.addEventListener("seeked", () => { media.currentTime = 0; }, { once: true });
    media.currentTime = 1e9;
  };

  class FaceClock {
    constructor(seconds) {
      this.seconds = seconds;
      this.base = 0;
      this.since = null;
    }
    get time() {
      const time = this.since === null ? this.base : this.base + (performance.now() - this.since) / 1000;
      if (time >= this.seconds && this.since !== null) { this.base = this.seconds; this.since = null; }
      return Math.min(time, this.seconds);
    }
    set time(value) { this.base = value; if (this.since !== null) this.since = performance.now(); }
    get playing() { return this.since !== null; }
    toggle() {
      this.base = this.time >= this.seconds ? 0 : this.time;
      this.since = this.playing ? null : performance.now();
    }
  }

  // --- one clip -----------------------------------------------------------------------------------------------------

  class ClipView {
    constructor(clip, model, file, scale) {
      Object.assign(this, { clip, model, file, scale });
      this.seconds = clip.seconds || 1;
      this.names = Object.keys(clip.intensities);
      this.media = h("div", { class: "er-media" });
      this.now = {};
      this.root = h("section", { class: "er-clip", "aria-label": `Result of ${clip.name}` }, h("h2", {}, clip.name));
      if (clip.error) {
        this.root.append(h("p", { class: "emit-error" }, `Not scored: ${clip.error}`));
        return;
      }
      if (clip.incomplete) this.root.append(h("p", { class: "emit-warning" }, `Not all of it is scored: ${clip.incomplete}`));
      if (clip.unlike) {
        const text = `Unlike the clips that the model was trained on, so its scores mean little: ${clip.unlike}`;
        this.root.append(h("p", { class: "emit-warning" }, text));
      }
      this.root.append(this.media, this.chart(), this.facts());
      this.play();
      this.frame = () => {
        if (!this.root.isConnected) return this.stop();
        this.show();
        setTimeout(() => requestAnimationFrame(this.frame), this.calm ? 250 : 0);
      };
      this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      requestAnimationFrame(this.frame);
    }

    stop() {
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = null;
    }

    play() {
      if (!this.file) return this.playFaces("The file is not in this browser");
      const isAudio = !this.clip.faces.length;
      this.url = URL.createObjectURL(this.file);
      const media = h(isAudio ? "audio" : "video", {
        src: this.url, controls: true, playsinline: true, preload: "auto", "aria-label": this.clip.name,
      });
      media.addEventListener("error", () => this.playFaces("This browser cannot play this kind of file"));
      media.addEventListener("loadedmetadata", () => {
        if (!isAudio && !media.videoWidth) this.playFaces("This browser cannot show these pictures");
        else if (media.duration === Infinity) findDuration(media);
      });
      this.clock = new MediaClock(media, this.seconds);
      this.media.replaceChildren(media);
    }

    playFaces(reason) {
      this.stop();
      const time = this.clock?.time ?? 0;
      this.clock = new FaceClock(this.seconds);
      this.clock.time = time;
      this.shown = null;
      const faces = this.clip.faces;
      this.face = faces.length ? h("img", { class: "er-face", alt: "the face that the model sees" }) : null;
      this.button = h("button", { type: "button", class: "er-button", onclick: () => this.clock.toggle() }, "Play");
      const instead = faces.length ? "; the faces that the model sees stand in for it." : "; its curves are below.";
      this.media.replaceChildren(
        h("div", { class: "er-standin" }, this.face, h("div", {}, h("p", {}, reason + instead), this.button)));
    }

    chart() {
      const { clip, names } = this;
      this.plots = h("div", { class: "er-rows" });
      this.plots.append(h("div", { class: "er-row er-head" },
        h("div", { class: "er-label" }, "Whole clip"), h("div"), h("span", {}, "Now")));
      names.forEach((name, k) => this.plots.append(this.row(name, k)));
      this.plots.append(this.axis());
      if (clip.faces.length) this.plots.append(this.strip());
      const weights = clip.weights;
      const used = Object.keys(weights.mean).filter((name) => weights.mean[name] > 0);
      if (used.length) {
        this.plots.append(h("p", { class: "er-heading" }, "How much each counted"));
        for (const name of used) this.plots.append(this.weightRow(name));
      }
      this.slider = h("div", {
        class: "er-seek", role: "slider", tabindex: "0", "aria-label": "Position in the clip",
        "aria-valuemin": "0", "aria-valuemax": this.seconds.toFixed(1),
        onkeydown: (event) => this.key(event),
        onpointerdown: (event) => {
          if (event.button) return;
          this.dragging = true;
          this.slider.setPointerCapture(event.pointerId);
          this.point(event);
        },
        onpointermove: (event) => this.dragging && this.point(event),
        onpointerup: () => { this.dragging = false; },
        onpointercancel: () => { this.dragging = false; },
      });
      this.timeline = h("div", { class: "er-chart" }, this.plots, this.slider);
      return this.timeline;
    }

    row(name, k) {
      const { clip, model, scale } = this;
      const range = model.dimensions[name], value = clip.intensities[name];
      const fraction = (v) => (v - range[0]) / (range[1] - range[0]);
      this.now[name] = h("span", { class: "er-now", "aria-hidden": "true" });
      const { times, values } = clip.curves;
      const percent = (v) => `${(100 * Math.min(1, Math.max(0, v))).toFixed(1)}%`;
      const ends = clip.intervals[name], low = ends ? fraction(ends[0]) : 0, high = ends ? fraction(ends[1]) : 0;
      return h("div", { class: `er-row er-c${k % 6}` },
        h("div", { class: "er-label" },
          h("span", { class: "er-name" }, name),
          h("span", { class: "er-value" }, number(value, range)),
          h("span", { class: "er-bar" }, h("i", { style: `width:${percent(fraction(value))}` }),
            ends ? h("b", { style: `left:${percent(low)};width:${percent(high - low)}` }) : null),
          ends ? h("span", { class: "er-interval" }, `${number(ends[0], range)} to ${number(ends[1], range)}`) : null),
        h("div", { class: "er-plot" }, this.curve(times, (values[name] ?? []).map(fraction), scale, fraction(value))),
        this.now[name]);
    }

    weightRow(name) {
      const { times, values, mean } = this.clip.weights;
      const shown = { vision: "Face", audio: "Voice", text: "Words" }[name] ?? name;
      return h("div", { class: "er-row er-weight" },
        h("div", { class: "er-label" },
          h("span", { class: "er-name" }, shown), h("span", { class: "er-value" }, mean[name].toFixed(2)),
          h("span", { class: "er-bar" }, h("i", { style: `width:${100 * Math.min(1, mean[name])}%` }))),
        h("div", { class: "er-plot" }, this.curve(times, values[name], 1, null)),
        h("span"));
    }

    curve(times, fractions, top, mean) {
      const x = (t) => 1000 * Math.min(1, t / this.seconds), y = (v) => 100 - 100 * Math.min(1, Math.max(0, v / top));
      const plot = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
      if (mean !== null) plot.append(svg("line", { x1: 0, x2: 1000, y1: y(mean), y2: y(mean), class: "er-mean" }));
      if (!times.length) return plot;
      const points = [[0, y(fractions[0])], ...times.map((t, i) => [x(t), y(fractions[i])]), [1000, y(fractions.at(-1))]];
      const line = points.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
      plot.append(svg("polygon", { points: `0,100 ${line} 1000,100`, class: "er-area" }));
      plot.append(svg("polyline", { points: line, class: "er-line" }));
      return plot;
    }

    axis() {
      const step = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600].find((s) => this.seconds / s <= 6) ?? 7200;
      const ticks = h("div", { class: "er-plot er-axis" });
      for (let t = 0; t <= this.seconds * 0.97; t += step) {
        ticks.append(h("span", { style: `left:${(100 * t) / this.seconds}%` }, this.seconds < 60 ? `${t} s` : clock(t)));
      }
      return h("div", { class: "er-row er-axisrow", "aria-hidden": "true" }, h("div", { class: "er-label" }), ticks, h("span"));
    }

    strip() {
      const pictures = h("div", { class: "er-plot er-strip" });
      const count = Math.min(12, this.clip.faces.length);
      for (let i = 0; i < count; i++) {
        const time = ((i + 0.5) / count) * this.seconds;
        pictures.append(h("img", { src: this.faceAt(time), alt: "", loading: "lazy" }));
      }
      return h("div", { class: "er-row er-striprow" },
        h("div", { class: "er-label" }, h("span", { class: "er-name" }, "Seen by the model")), pictures, h("span"));
    }

    faceAt(time) {
      const faces = this.clip.faces;
      const nearest = faces.reduce((a, b) => (Math.abs(b.time - time) < Math.abs(a.time - time) ? b : a));
      return `data:image/jpeg;base64,${nearest.jpeg}`;
    }

    facts() {
      const { clip } = this;
      const list = h("ul", {}, ...clip.found.map((line) => h("li", {}, line)));
      clip.remarks.forEach((line) => list.append(h("li", { class: "er-remark" }, `Note: ${line}`)));
      return h("div", { class: "er-facts" },
        h("div", {}, h("h3", {}, "Transcript"),
          h("p", { class: clip.transcript ? "er-transcript" : "er-none" }, clip.transcript || "No words were given.")),
        h("div", {}, h("h3", {}, "Found in the clip"), list));
    }

    point(event) {
      const box = this.slider.getBoundingClientRect();
      this.seek(((event.clientX - box.left) / box.width) * this.seconds);
    }

    key(event) {
      const small = Math.max(0.5, this.seconds / 100), large = this.seconds / 10;
      const steps = { ArrowRight: small, ArrowUp: small, ArrowLeft: -small, ArrowDown: -small, PageUp: large, PageDown: -large };
      if (event.key === " " || event.key === "Enter") this.clock.toggle();
      else if (event.key === "Home") this.seek(0);
      else if (event.key === "End") this.seek(this.seconds);
      else if (event.key in steps) this.seek(this.clock.time + steps[event.key]);
      else return;
      event.preventDefault();
    }

    seek(time) {
      this.clock.time = Math.min(this.seconds, Math.max(0, time));
      this.show();
    }

    show() {
      const time = this.clock.time;
      if (this.button) this.button.textContent = this.clock.playing ? "Pause" : "Play";
      if (time === this.shown) return;
      this.shown = time;
      this.timeline.style.setProperty("--t", `${100 * Math.min(1, time / this.seconds)}%`);
      const { times, values } = this.clip.curves;
      const said = [];
      for (const name of this.names) {
        const value = interpolate(times, values[name] ?? [], time);
        const text = value === null ? "" : number(value, this.model.dimensions[name]);
        this.now[name].textContent = text;
        said.push(`${name} ${text}`);
      }
      if (this.face) this.face.src = this.faceAt(time);
      this.slider.setAttribute("aria-valuenow", time.toFixed(1));
      if (!this.clock.playing) this.slider.setAttribute("aria-valuetext", `${clock(time, 1)}: ${said.join(", ")}`);
    }
  }

  // --- all clips of a request ---------------------------------------------------------------------------------------

  class EmitResults extends HTMLElement {
    connectedCallback() {
      if (this.answer) return;
      this.answer = JSON.parse(this.dataset.answer);
      this.removeAttribute("data-answer");
      const { clips, model, paths } = this.answer;
      this.answer.spent.forEach((path) => spent.add(path));
      this.entries = clips.map((clip, i) => ({ clip, file: files.get(paths[i]), place: i }));
      this.scale = this.chooseScale();
      this.detail = h("div", { class: "er-detail" });
      if (clips.length > 1) this.append(this.table());
      this.append(this.detail, this.downloads());
      this.select(this.entries.find((entry) => !entry.clip.error) ?? this.entries[0]);
      const range = Object.values(model.dimensions)[0];
      const top = range[0] + this.scale * (range[1] - range[0]);
      const note = `Curves: the model on a short window that moves along the clip, from ${range[0]} to ${+top.toFixed(2)}`
        + " in every row. Number, bar and dotted line: the whole clip."
        + (clips.some((clip) => Object.keys(clip.intervals).length)
          ? ` From ... to: where ${Math.round(100 * model.coverage)} % of the labels lie, for people like those of the training data.` : "");
      if (clips.some((clip) => !clip.error)) this.detail.after(h("p", { class: "emit-small" }, note));
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      this.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    }

    chooseScale() {
      let most = 0;
      for (const { clip } of this.entries) {
        for (const [name, value] of Object.entries(clip.intensities)) {
          const [low, high] = this.answer.model.dimensions[name];
          for (const v of [value, ...(clip.curves.values[name] ?? [])]) most = Math.max(most, (v - low) / (high - low));
        }
      }
      return [0.1, 0.2, 0.25, 0.5, 0.75, 1].find((top) => top >= most) ?? 1;
    }

    select(entry) {
      this.current = entry;
      this.detail.replaceChildren(new ClipView(entry.clip, this.answer.model, entry.file, this.scale).root);
      this.rows?.forEach((row, other) => {
        row.classList.toggle("er-selected", other === entry);
        row.querySelector("button").setAttribute("aria-pressed", other === entry);
      });
    }

    table() {
      const names = Object.keys(this.answer.model.dimensions);
      this.rows = new Map();
      const header = (text, key, isNumber) => h("th", { scope: "col", "aria-sort": "none", class: isNumber ? "er-number" : "" },
        h("button", { type: "button", onclick: (event) => this.sort(event.currentTarget.parentElement, key, isNumber) }, text));
      const head = h("tr", {}, header("Clip", (clip) => clip.name, false),
        ...names.map((name) => header(name, (clip) => clip.intensities[name] ?? -Infinity, true)));
      for (const entry of this.entries) {
        const { clip } = entry;
        const choose = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.select(entry) }, clip.name);
        const cells = clip.error
          ? [h("td", { colspan: names.length, class: "er-failed" }, `Not scored: ${clip.error}`)]
          : names.map((name) => this.cell(name, clip.intensities[name]));
        const unlike = clip.unlike ? h("span", { class: "er-flag", title: clip.unlike }, "unlike the training clips") : null;
        this.rows.set(entry, h("tr", {}, h("th", { scope: "row" }, choose, unlike), ...cells));
      }
      this.body = h("tbody", {}, ...this.rows.values());
      return h("div", { class: "er-tablebox", tabindex: "0", role: "region", "aria-label": "All clips" },
        h("table", {}, h("caption", {}, `${this.entries.length} clips; choose one to see its curves`),
          h("thead", {}, head), this.body));
    }

    cell(name, value) {
      const range = this.answer.model.dimensions[name];
      const share = Math.max(0, Math.min(1, (value - range[0]) / (range[1] - range[0]) / this.scale));
      return h("td", { class: "er-number", style: `--share:${(100 * share).toFixed(1)}%` }, number(value, range));
    }

    sort(header, key, isNumber) {
      const before = header.getAttribute("aria-sort");
      const descending = before === "none" ? isNumber : before === "ascending";
      header.parentElement.querySelectorAll("th").forEach((th) => th.setAttribute("aria-sort", "none"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const order = (a, b) => (isNumber ? key(a.clip) - key(b.clip) : key(a.clip).localeCompare(key(b.clip))) || a.place - b.place;
      const entries = [...this.entries].sort((a, b) => (descending ? order(b, a) : order(a, b)));
      this.body.replaceChildren(...entries.map((entry) => this.rows.get(entry)));
    }

    downloads() {
      const { csv, paths, spent: _, ...answer } = this.answer;
      return h("div", { class: "er-downloads" },
        h("button", { type: "button", class: "er-button", onclick: () => save("predictions.csv", "text/csv", csv) }, "Download CSV"),
        h("button", {
          type: "button", class: "er-button",
          onclick: () => save("predictions.json", "application/json", JSON.stringify(answer, null, 1)),
        }, "Download JSON"));
    }
  }

  customElements.define("emit-results", EmitResults);
})();
