"use strict";
// The scripts of report.html. Names from data are only ever written as text nodes.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const get = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // Okabe and Ito's colors, distinguishable with any color vision; dashes distinguish them in grey
  const LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07A00", "#56B4E9", "#000000"];
  const DARK = ["#56B4E9", "#FF8A3D", "#2FC79A", "#E9A3CB", "#F0C94A", "#9AD1F5", "#FFFFFF"];
  const DASHES = [[], [8, 4], [8, 3, 2, 3], [2, 3], [12, 3], [6, 2, 2, 2, 2, 2], [1, 2]];

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  const root = document.documentElement;
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const color = (at) => (dark.matches && !root.dataset.printing ? DARK : LIGHT)[at % LIGHT.length];
  const dash = (at) => DASHES[at % DASHES.length];
  // the first colors are those of the attacks that are drawn first
  const order = [...new Set([data.best || [], ...[data.curves, (data.epochs || {}).attacks,
    (data.overfitting || {}).attacks].map((part) => Object.keys(part || {}).map(Number))].flat())];
  const hue = (attack) => order.indexOf(Number(attack));
  // of a curve: the numbers of its color and of its dashes
  const look = (attack) => (data.looks || {})[attack] || [hue(attack), hue(attack)];
  const ink = (attack) => color(look(attack)[0]);

  // ---- numbers, written as report.md writes them
  const digits = (value) => (Math.abs(value) < 0.00995 ? 2 : 1);
  const percent = (value) => (100 * value).toFixed(digits(value)) + "%";
  const count = (value) => Number(value).toLocaleString("en-US");
  const rate = (value) => Number((100 * value).toPrecision(3)) + "%";
  function number(value, unit) {
    if (value === null || value === undefined) return "–";
    if (unit === "%") return percent(value);
    return unit === "" ? value.toFixed(3) : String(Number(value.toPrecision(4)));
  }

  // ---- downloads
  // A text that a spreadsheet would run as a formula gets an apostrophe, as in results.csv.
  function csvCell(value) {
    if (value === null || value === undefined) return "";
    let text = String(value);
    if (typeof value === "string" && /^[=+\-@\t\r\n]/.test(text)) text = "'" + text;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }
  function tableOf(table) {
    if (table.download) return table.download();
    const cells = (row) => [...row.cells].map((cell) => cell.textContent.trim().replace(/\s+/g, " "));
    const head = table.tHead ? cells(table.tHead.rows[0]) : [];
    return { columns: head, rows: [...table.tBodies].flatMap((body) => [...body.rows].map(cells)) };
  }
  function asCsv({ columns, rows }) {
    return [columns, ...rows].map((row) => row.map(csvCell).join(",")).join("\n") + "\n";
  }
  function asJson({ columns, rows }) {
    const names = columns.map((name, at) =>
      name && columns.indexOf(name) === at ? name : `${name || "column"} ${at + 1}`);
    return JSON.stringify(
      rows.map((row) => Object.fromEntries(names.map((name, at) => [name, row[at]]))), null, 1) + "\n";
  }
  function save(text, name, type) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = element("a", null, { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  function addDownloads() {
    const used = {};
    for (const table of document.querySelectorAll("table[data-download]")) {
      const section = table.closest("details.section, section");
      const stem = table.id || (section ? section.id.replace(/^section-/, "") : "table");
      used[stem] = (used[stem] || 0) + 1;
      const name = used[stem] > 1 ? `${stem}-${used[stem]}` : stem;
      const bar = element("p", null, { class: "downloads" });
      for (const [kind, write, type] of
        [["CSV", asCsv, "text/csv;charset=utf-8"], ["JSON", asJson, "application/json"]]) {
        const button = element("button", kind, {
          type: "button", "data-testid": `${kind.toLowerCase()}-${name}`,
          "aria-label": `Download the table ${name} as ${kind}`,
        });
        button.addEventListener("click", () =>
          save(write(tableOf(table)), `${name}.${kind.toLowerCase()}`, type));
        bar.append(button);
      }
      (table.closest(".scroll") || table).after(bar);
    }
  }

  // ---- the ROC figure
  const curves = data.curves || {};
  const state = { shown: new Set(data.best || []), fpr: 0.01, share: 0.5 };
  let rocPlot = null;

  const plain = () => ({ stroke: style("--text"), font: "13px system-ui, sans-serif",
    grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line"), width: 1 } });
  const wide = (place) => Math.max(280, Math.min(980, place.clientWidth));

  function stops() {
    const all = new Set();
    for (const curve of Object.values(curves)) curve.band.fpr.forEach((fpr) => all.add(fpr));
    return [...all].sort((a, b) => a - b);
  }
  // The step rule: the last vertex whose false positives the rate allows.
  function pointAt(curve, fpr) {
    const place = curve.band.fpr.indexOf(fpr);
    if (place < 0) return null;
    const allowed = Math.max(1, Math.floor(fpr * curve.n_nonmember * (1 + 1e-9)));
    let at = 0;
    while (at + 1 < curve.false.length && curve.false[at + 1] <= allowed) at += 1;
    const tp = curve.true[at], fp = curve.false[at];
    return { tp, fp, tpr: tp / curve.n_member, fpr: fp / curve.n_nonmember,
      low: curve.band.low[place], high: curve.band.high[place] };
  }
  // Among the flagged records, if a share of the records are members; that share if none is flagged.
  function precision(point, share) {
    const flagged = share * point.tpr + (1 - share) * point.fpr;
    return flagged > 0 ? (share * point.tpr) / flagged : share;
  }

  // The next lower rate that begins with 1, 2 or 5.
  function round(value) {
    const decade = Math.pow(10, Math.floor(Math.log10(value) + 1e-9));
    const first = [5, 2, 1].find((digit) => digit * decade <= value * (1 + 1e-9));
    return Number((first * decade).toPrecision(1));
  }

  function drawRoc() {
    const place = get("roc-plot");
    if (!place) return;
    const shown = Object.keys(curves).map(Number).filter((at) => state.shown.has(at));
    const all = Object.values(curves);
    const floor = 1 / Math.max(...all.map((curve) => curve.n_nonmember));
    const bottom = round(Math.min(1 / Math.max(...all.map((curve) => curve.n_member)), 1e-3));
    const left = round(Math.min(floor, 1e-3));
    const clip = (value) => Math.max(value, bottom);
    const tables = [[[left, 1], [left, 1]]];
    const series = [{}, { label: "random guessing", stroke: style("--muted"), width: 1, dash: [4, 4],
      points: { show: false }, spanGaps: true }];
    const bands = [];
    if (data.privacy) {
      const drawn = data.privacy.fpr.map((fpr, i) => [fpr, clip(data.privacy.tpr[i])])
        .filter(([fpr]) => fpr >= left);
      tables.push([drawn.map(([fpr]) => fpr), drawn.map(([, tpr]) => tpr)]);
      series.push({ label: "differential privacy", stroke: style("--text"), width: 2, dash: [2, 2],
        points: { show: false }, spanGaps: true });
    }
    for (const at of shown) {
      const curve = curves[at];
      const x = [], y = [];
      curve.false.forEach((fp, v) => {
        if (fp === 0) return;
        if (!x.length && fp > 1 && v > 0) {
          x.push(1 / curve.n_nonmember);
          y.push(clip(curve.true[v - 1] / curve.n_member));
        }
        x.push(fp / curve.n_nonmember);
        y.push(clip(curve.true[v] / curve.n_member));
      });
      const first = series.length;
      tables.push([curve.band.fpr, curve.band.high.map(clip), curve.band.low.map(clip)], [x, y]);
      const edge = { width: 0, stroke: "transparent", points: { show: false }, spanGaps: true };
      series.push({ ...edge }, { ...edge });
      series.push({ label: data.attacks[at], stroke: ink(at), width: 2, dash: dash(look(at)[1]),
        points: { show: false }, spanGaps: true, paths: uPlot.paths.stepped({ align: 1 }) });
      bands.push({ series: [first, first + 1], fill: ink(at) + "33" });
    }
    const power = (u, values) => values.map((value) => (value === null ? "" : rate(value)));
    const width = wide(place);
    const options = {
      width, height: Math.round(Math.min(600, Math.max(300, width * 0.66))),
      legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, distr: 3, range: [left, 1] }, y: { distr: 3, range: [bottom, 1] } },
      axes: [
        { ...plain(), label: "false-positive rate (FPR)", values: power, space: 60 },
        { ...plain(), label: "true-positive rate (TPR)", values: power, size: 70 },
      ],
      series, bands,
      hooks: { draw: [(u) => mark(u, shown, bottom)] },
    };
    if (rocPlot) rocPlot.destroy();
    rocPlot = new uPlot(options, uPlot.join(tables), place);
    place.plot = rocPlot; // what is drawn can be read from the element
    rocPlot.over.addEventListener("click", () => {
      const at = rocPlot.posToVal(rocPlot.cursor.left, "x"), list = stops();
      const near = (a) => Math.abs(Math.log(a / at));
      choose(list.reduce((best, fpr) => (near(fpr) < near(best) ? fpr : best), list[0]));
    });
  }
  function mark(u, shown, bottom) {
    const x = u.valToPos(state.fpr, "x", true), { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = style("--accent");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    for (const at of shown) {
      const point = pointAt(curves[at], state.fpr);
      if (!point) continue;
      ctx.fillStyle = ink(at);
      ctx.beginPath();
      ctx.arc(x, u.valToPos(Math.max(point.tpr, bottom), "y", true), 5 * devicePixelRatio, 0, 7);
      ctx.fill();
    }
    ctx.restore();
  }
  function choose(fpr) {
    state.fpr = fpr;
    get("fpr").value = String(stops().indexOf(fpr));
    showPoint();
  }
  function showPoint() {
    const slider = get("fpr"), text = rate(state.fpr);
    get("fpr-value").textContent = text;
    slider.setAttribute("aria-valuetext", `false-positive rate ${text}`);
    const body = get("roc-point").tBodies[0];
    body.replaceChildren();
    for (const key of Object.keys(curves)) {
      if (!state.shown.has(Number(key))) continue;
      const curve = curves[key], point = pointAt(curve, state.fpr);
      const row = body.insertRow();
      row.dataset.attack = data.attacks[key];
      const name = element("th", null, { scope: "row" });
      const swatch = element("span", null, { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = ink(key);
      name.append(swatch, element("code", data.attacks[key]));
      row.append(name);
      const cells = point === null
        ? ["not resolvable", "", "", "", "", ""]
        : [percent(point.tpr), `[${percent(point.low)}, ${percent(point.high)}]`,
          percent(precision(point, state.share)),
          `${count(point.tp)} of ${count(curve.n_member)}`,
          `${count(point.fp)} of ${count(curve.n_nonmember)}`, percent(point.fpr)];
      const kinds = ["tpr", "interval", "precision", "true", "false", "realized"];
      cells.forEach((cell, at) => row.append(element("td", cell, { "data-value": kinds[at] })));
    }
    if (data.privacy) {
      const row = body.insertRow(), allowed = data.privacy.tpr[data.privacy.fpr.indexOf(state.fpr)];
      row.dataset.bound = "true";
      row.append(element("th", "bound of differential privacy", { scope: "row" }),
        element("td", allowed === undefined ? "–" : "at most " + percent(allowed),
          { "data-value": "bound" }), ...Array.from({ length: 5 }, () => element("td", "")));
    }
    if (rocPlot) rocPlot.redraw(false, false);
  }
  function setShare(share, from) {
    if (!(share > 0 && share < 1)) return;
    state.share = share;
    if (from !== "number") get("share-number").value = String(Number((100 * share).toPrecision(3)));
    if (from !== "range") get("share").value = String(Math.log10(share));
    get("share").setAttribute("aria-valuetext", `${percent(share)} of the records are members`);
    showPoint();
  }
  function startRoc() {
    if (!get("roc-plot")) return;
    const list = stops(), slider = get("fpr"), near = (fpr) => Math.abs(Math.log(fpr / 0.01));
    slider.max = String(list.length - 1);
    state.fpr = list.reduce((best, fpr) => (near(fpr) < near(best) ? fpr : best), list[0]);
    const choices = get("roc-attacks");
    for (const key of Object.keys(curves)) {
      const label = element("label"), box = element("input", null, { type: "checkbox", value: key });
      box.checked = state.shown.has(Number(key));
      box.addEventListener("change", () => {
        if (box.checked) state.shown.add(Number(key));
        else state.shown.delete(Number(key));
        drawRoc();
        showPoint();
      });
      const swatch = element("span", null, { class: "swatch", "aria-hidden": "true" });
      label.append(box, swatch, element("code", data.attacks[key]));
      choices.append(label);
    }
    slider.addEventListener("input", () => choose(list[Number(slider.value)]));
    startChoices(choices);
    get("share-number").addEventListener("input", (event) =>
      setShare(Number(event.target.value) / 100, "number"));
    get("share").addEventListener("input", (event) =>
      setShare(Math.pow(10, Number(event.target.value)), "range"));
    drawRoc();
    choose(state.fpr);
    setShare(0.5, "");
  }
  // Of a comparison: which curves are drawn, by the attack.
  function startChoices(boxes) {
    const select = get("roc-choose");
    if (!select) return;
    const sets = [{ title: "the strongest attack of each run", shown: data.best },
      ...(data.choices || []).map(({ title, shown }) => ({ title: `${title}, all runs`, shown }))];
    sets.forEach(({ title }, at) => select.append(element("option", title, { value: at })));
    select.addEventListener("change", () => {
      state.shown = new Set(sets[Number(select.value)].shown);
      for (const box of boxes.querySelectorAll("input")) {
        box.checked = state.shown.has(Number(box.value));
      }
      drawRoc();
      showPoint();
    });
  }
  function paintSwatches() {
    document.querySelectorAll("#roc-attacks input").forEach((box) => {
      box.parentElement.querySelector(".swatch").style.background = ink(box.value);
    });
  }

  // ---- the table of attacks
  const COLUMNS = [
    ["attack", "attack"], ["knows", "attacker has"], ["slice", "slice"], ["metric", "metric"],
    ["value", "value"], ["low", "low"], ["high", "high"], ["n_member", "members"],
    ["n_nonmember", "non-members"], ["fpr_realized", "realized FPR"],
  ];
  const table = { sort: "low", down: true };
  function records() {
    return (data.rows || []).map((row) => {
      const record = Object.fromEntries(data.columns.map((name, at) => [name, row[at]]));
      const metric = data.metrics[record.metric], knows = data.knows[record.attack];
      return { ...record, attack: data.attacks[record.attack], slice: data.slices[record.slice],
        metric: metric.key, title: metric.name, unit: metric.unit,
        knows: data.knowledge[knows] || knows };
    });
  }
  function startAttacks() {
    if (!get("attack-table")) return;
    const all = records();
    const filters = { knows: get("filter-knows"), slice: get("filter-slice"),
      metric: get("filter-metric") };
    const fill = (select, pairs, chosen) => {
      for (const [value, text] of [["", "all"], ...pairs]) {
        select.append(element("option", text, { value }));
      }
      select.value = chosen;
      select.addEventListener("change", show);
    };
    const unique = (key) => [...new Set(all.map((record) => record[key]))];
    // options are numbered: a name from data may be empty
    const options = { knows: unique("knows"), slice: unique("slice"), metric: unique("metric") };
    const named = (list, text = (x) => x) => list.map((value, at) => [String(at), text(value)]);
    const title = new Map(data.metrics.map((metric) => [metric.key, metric.name]));
    fill(filters.knows, named(options.knows), "");
    fill(filters.slice, named(options.slice, (x) => (x === "all" ? "all records" : x)),
      String(options.slice.indexOf("all")));
    fill(filters.metric, named(options.metric, (key) => title.get(key)),
      String(options.metric.indexOf(data.main)));
    const head = get("attack-table").tHead.rows[0];
    for (const [key, text] of COLUMNS) {
      const cell = element("th", null, { scope: "col", "data-key": key });
      const button = element("button", text, { type: "button", "data-testid": `sort-${key}` });
      button.addEventListener("click", () => {
        table.down = table.sort === key ? !table.down : !["attack", "knows", "slice", "metric"]
          .includes(key);
        table.sort = key;
        show();
      });
      cell.append(button);
      head.append(cell);
    }
    let listed = [];
    function show() {
      const chosen = (key) => filters[key].value === "" ? null : options[key][filters[key].value];
      listed = all.filter((record) => Object.keys(filters).every((key) =>
        chosen(key) === null || record[key] === chosen(key)));
      const sign = table.down ? -1 : 1;
      listed.sort((a, b) => {
        const x = a[table.sort], y = b[table.sort];
        if (x === y) return 0;
        if (x === null || x === undefined) return 1; // what is missing comes last
        if (y === null || y === undefined) return -1;
        return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
      });
      for (const cell of head.cells) {
        const sorted = cell.dataset.key === table.sort;
        cell.setAttribute("aria-sort", sorted ? (table.down ? "descending" : "ascending") : "none");
      }
      const body = get("attack-table").tBodies[0], part = document.createDocumentFragment();
      for (const record of listed.slice(0, 1000)) {
        const row = element("tr");
        const cells = [
          null, record.knows, record.slice === "all" ? "all records" : record.slice, record.title,
          number(record.value, record.unit) + (record.pooled ? "†" : ""),
          number(record.low, record.unit), number(record.high, record.unit),
          record.n_member === null ? "–" : count(record.n_member),
          record.n_nonmember === null ? "–" : count(record.n_nonmember),
          record.fpr_realized === null ? "–" : percent(record.fpr_realized),
        ];
        const name = element("th", null, { scope: "row" });
        name.append(element("code", record.attack));
        row.append(name, ...cells.slice(1).map((cell) => element("td", cell)));
        part.append(row);
      }
      body.replaceChildren(part);
      const more = listed.length > 1000 ? " (the first 1,000 are shown; downloads have all)" : "";
      get("attack-count").textContent = `${count(listed.length)} of ${count(all.length)} numbers${more}`;
    }
    const columns = ["attack", "knows", "slice", "metric", "target", ...data.columns.slice(4)];
    get("attack-table").download = () => ({ columns, rows: listed.map((record) => columns.map((key) =>
      key === "target" ? (record.pooled ? "pooled" : null) : record[key])) });
    get("attack-filters").addEventListener("submit", (event) => event.preventDefault());
    show();
  }

  // ---- tables that are written already: the titles of their columns sort them
  function startSorting() {
    for (const table of document.querySelectorAll("table[data-sort]")) {
      const head = table.tHead.rows[0], body = table.tBodies[0];
      const worth = (row, at) => {
        const cell = row.cells[at], text = cell.textContent.trim();
        return "sort" in cell.dataset ? Number(cell.dataset.sort) : text;
      };
      const empty = (value) => value === "" || value === "–";
      [...head.cells].forEach((cell, at) => {
        const button = element("button", null, { type: "button",
          "data-testid": `sort-${table.id}-${at}` });
        button.append(...cell.childNodes);
        cell.replaceChildren(button);
        cell.setAttribute("aria-sort", "none");
        button.addEventListener("click", () => {
          const down = cell.getAttribute("aria-sort") === "ascending";
          for (const other of head.cells) other.setAttribute("aria-sort", "none");
          cell.setAttribute("aria-sort", down ? "descending" : "ascending");
          const rows = [...body.rows].sort((a, b) => {
            const x = worth(a, at), y = worth(b, at);
            if (empty(x) || empty(y)) return empty(x) - empty(y); // what is missing comes last
            const order = typeof x === "number" && typeof y === "number" ? x - y
              : String(x).localeCompare(String(y));
            return down ? -order : order;
          });
          body.append(...rows);
        });
      });
      const whole = (data.tables || {})[table.id];
      if (whole) table.download = () => whole;
    }
  }

  // ---- histograms
  let histogramPlot = null;
  function drawHistogram() {
    const place = get("histogram");
    if (!place || !place.clientWidth) return; // its section is closed
    const select = get("histogram-attack"), name = select.selectedOptions[0].textContent;
    const found = Object.entries(data.histograms).find(([at]) => data.attacks[at] === name)
      || Object.entries(data.histograms)[Number(select.value)];
    const { low, high, member, nonmember } = found[1], bins = member.length;
    const x = Array.from({ length: bins + 1 }, (_, i) => low + ((high - low) * i) / bins);
    const sum = (list) => list.reduce((a, b) => a + b, 0) || 1;
    const share = (list) => [...list, list[bins - 1]].map((n) => n / sum(list));
    const paths = uPlot.paths.stepped({ align: 1 });
    const line = (label, at) => ({ label, stroke: color(at), fill: color(at) + "33", width: 2,
      dash: dash(at), paths, points: { show: false } });
    const width = wide(place);
    if (histogramPlot) histogramPlot.destroy();
    histogramPlot = new uPlot({
      width, height: Math.round(width * 0.45), cursor: { show: false },
      scales: { x: { time: false }, y: { range: (u, min, max) => [0, max * 1.1] } },
      axes: [{ ...plain(), label: "score (higher: more likely a member)" },
        { ...plain(), label: "share of the rows", size: 70,
          values: (u, values) => values.map((value) => rate(value)) }],
      series: [{}, line(`non-members (${count(sum(nonmember))})`, 0),
        line(`members (${count(sum(member))})`, 1)],
      legend: { live: false, isolate: false },
    }, [x, share(nonmember), share(member)], place);
    const body = get("histogram-table").tBodies[0], part = document.createDocumentFragment();
    for (let i = 0; i < bins; i += 1) {
      const row = element("tr");
      row.append(...[x[i].toPrecision(6), x[i + 1].toPrecision(6), count(member[i]),
        count(nonmember[i])].map((cell) => element("td", cell)));
      part.append(row);
    }
    body.replaceChildren(part);
    get("histogram-table").download = () => ({
      columns: ["score from", "to", "members", "non-members"],
      rows: member.map((n, i) => [x[i], x[i + 1], n, nonmember[i]]),
    });
  }
  function startHistogram() {
    if (!get("histogram")) return;
    get("histogram-attack").addEventListener("change", drawHistogram);
    get("histogram").closest("details").addEventListener("toggle", drawHistogram);
    drawHistogram();
  }

  // ---- leakage over epochs, against accuracy and against overfitting
  const written = (value, unit) => unit === "%" ? rate(value)
    : unit === "pp" ? `${Number((100 * value).toPrecision(3))} pp` : String(Number(value.toPrecision(4)));
  function range(values) {
    const known = values.filter((value) => value !== null && Number.isFinite(value));
    const low = Math.min(...known), high = Math.max(...known);
    const more = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.05;
    return [low - more, high + more];
  }
  function fillMetrics(select, metrics, change) {
    metrics.forEach((metric, at) => select.append(element("option", metric.name, { value: at })));
    select.addEventListener("change", change);
  }
  function legend(place, entries) {
    place.replaceChildren(...entries.map(([text, stroke]) => {
      const entry = element("span"), swatch = element("span", null, { class: "swatch" });
      swatch.style.background = stroke;
      entry.append(swatch, text);
      return entry;
    }));
  }
  // Points with their intervals, in an order that need not be that of x; joined ones as a path.
  function drawPoints(place, { xLabel, yLabel, xUnit, yUnit, guess, groups, joined }) {
    if (place.plot) place.plot.destroy();
    place.plot = null;
    const points = groups.flatMap((group) => group.points);
    if (!points.length) return;
    const x = range(points.map((point) => point.x));
    const y = range([guess, ...points.flatMap((point) => [point.y, point.low, point.high])]);
    const width = wide(place);
    function paint(u) {
      const { ctx } = u, scale = devicePixelRatio;
      const at = (px, py) => [u.valToPos(px, "x", true), u.valToPos(py, "y", true)];
      function line(stroke, dashes, corners, thick = 1) {
        ctx.strokeStyle = stroke;
        ctx.lineWidth = thick * scale;
        ctx.setLineDash(dashes.map((part) => part * scale));
        ctx.beginPath();
        corners.forEach((corner, n) => (n ? ctx.lineTo(...corner) : ctx.moveTo(...corner)));
        ctx.stroke();
      }
      ctx.save();
      if (guess !== null) line(style("--muted"), [4, 4], [at(x[0], guess), at(x[1], guess)]);
      for (const { points: own, stroke, dashes } of groups) {
        if (joined) line(stroke, dashes, own.map((point) => at(point.x, point.y)), 2);
        own.forEach((point, n) => {
          if (point.low !== null && !joined) {
            line(stroke, [], [at(point.x, point.low), at(point.x, point.high)]);
          }
          ctx.beginPath();
          ctx.setLineDash([]);
          ctx.arc(...at(point.x, point.y), (joined && n < own.length - 1 && n ? 2 : 4) * scale, 0, 7);
          ctx.fillStyle = joined && n === 0 ? style("--page") : stroke;
          ctx.fill();
          ctx.strokeStyle = stroke;
          ctx.lineWidth = scale;
          ctx.stroke();
        });
      }
      ctx.restore();
    }
    const axis = (label, unit) => ({ ...plain(), label, values: (u, values) =>
      values.map((value) => (value === null ? "" : written(value, unit))) });
    place.plot = new uPlot({
      width, height: Math.round(Math.min(460, width * 0.55)), legend: { show: false },
      cursor: { show: false }, scales: { x: { time: false, range: x }, y: { range: y } },
      axes: [axis(xLabel, xUnit), { ...axis(yLabel, yUnit), size: 70 }],
      series: [{}, { stroke: "transparent", points: { show: false } }],
      hooks: { draw: [paint] },
    }, [x, [null, null]], place);
    place.plot.groups = groups;
  }
  const closedPlace = (id) => !get(id) || !get(id).clientWidth;

  function drawEpochs() {
    if (closedPlace("epochs-plot") || !data.epochs) return;
    const over = data.epochs, metric = over.metrics[Number(get("epochs-metric").value)];
    const place = get("epochs-plot"), width = wide(place);
    const lines = [over.epoch], series = [{}], bands = [], entries = [], leaks = [metric.guess];
    for (const key of over.shown) {
      const { value, low, high } = over.attacks[key][metric.key], stroke = color(hue(key));
      const edge = { scale: "y", width: 0, stroke: "transparent", points: { show: false } };
      bands.push({ series: [series.length, series.length + 1], fill: stroke + "33" });
      lines.push(high, low, value);
      leaks.push(...high, ...low, ...value);
      series.push(edge, { ...edge }, { label: data.attacks[key], scale: "y", stroke, width: 2,
        dash: dash(hue(key)), spanGaps: true });
      entries.push([data.attacks[key], stroke]);
    }
    const accuracies = [["accuracy on members", over.train, [2, 2]],
      ["accuracy on non-members", over.validation, [6, 3]]]
      .filter(([, values]) => values.some((value) => value !== null));
    for (const [label, values, dashes] of accuracies) {
      lines.push(values);
      series.push({ label, scale: "accuracy", stroke: style("--muted"), width: 2, dash: dashes,
        points: { show: false }, spanGaps: true });
      entries.push([`${label} (${dashes[0] === 2 ? "dotted" : "dashed"}, right axis)`, style("--muted")]);
    }
    const whole = Array.from({ length: 16 }, (_, at) => [1, 2, 5][at % 3] * 10 ** Math.floor(at / 3));
    const axes = [{ ...plain(), label: "epoch", incrs: whole }, { ...plain(), scale: "y", label: metric.name, size: 70,
      values: (u, values) => values.map((value) => written(value, metric.unit)) }];
    if (accuracies.length) {
      axes.push({ ...plain(), scale: "accuracy", side: 1, label: "accuracy", size: 70,
        grid: { show: false }, values: (u, values) => values.map((value) => rate(value)) });
    }
    if (place.plot) place.plot.destroy();
    const fixed = range(leaks);
    place.plot = new uPlot({
      width, height: Math.round(Math.min(460, width * 0.55)), legend: { show: false },
      cursor: { show: false }, axes, series, bands,
      scales: { x: { time: false }, y: { range: fixed }, accuracy: { range: range(
        accuracies.flatMap(([, values]) => values)) } },
    }, lines, place);
    legend(get("epochs-legend"), entries);
    if (!get("epochs-path")) return;
    drawPoints(get("epochs-path"), {
      xLabel: "accuracy on non-members", xUnit: "%", yLabel: metric.name, yUnit: metric.unit,
      guess: metric.guess, joined: true,
      groups: over.shown.map((key) => ({ label: data.attacks[key], stroke: color(hue(key)),
        dashes: dash(hue(key)), points: pointsOf(over.validation, over.attacks[key][metric.key]) })),
    });
  }
  function pointsOf(x, { value, low, high }) {
    return x.map((place, at) => ({ x: place, y: value[at], low: low[at], high: high[at] }))
      .filter((point) => point.x !== null && point.y !== null);
  }
  function drawOverfitting() {
    if (closedPlace("overfitting-plot") || !data.overfitting) return;
    const over = data.overfitting, metric = over.metrics[Number(get("overfitting-metric").value)];
    const axis = get("overfitting-axis"), along = axis.value;
    const keys = Object.keys(over.attacks), share = over.quality === "accuracy";
    drawPoints(get("overfitting-plot"), {
      xLabel: along === "gap" ? `gap of the ${over.quality}`
        : axis.selectedOptions[0].textContent.replace("the quality", over.quality),
      xUnit: share ? (along === "gap" ? "pp" : "%") : "", yLabel: metric.name, yUnit: metric.unit, guess: metric.guess,
      joined: false,
      groups: keys.map((key) => ({ label: data.attacks[key], stroke: color(hue(key)), dashes: [],
        points: pointsOf(over[along], over.attacks[key][metric.key]) })),
    });
    legend(get("overfitting-legend"), keys.map((key) => [data.attacks[key], color(hue(key))]));
  }
  function startLeakage() {
    if (get("epochs-plot")) {
      fillMetrics(get("epochs-metric"), data.epochs.metrics, drawEpochs);
      get("epochs-plot").closest("details").addEventListener("toggle", drawEpochs);
    }
    if (get("overfitting-plot")) {
      fillMetrics(get("overfitting-metric"), data.overfitting.metrics, drawOverfitting);
      get("overfitting-axis").addEventListener("change", drawOverfitting);
      get("overfitting-plot").closest("details").addEventListener("toggle", drawOverfitting);
    }
  }

  // ---- the page
  const sections = () => document.querySelectorAll("details.section");
  function openTarget() {
    const target = location.hash.length > 1 && get(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  }
  function redraw() {
    paintSwatches();
    drawRoc();
    if (get("roc-point")) showPoint();
    drawHistogram();
    drawEpochs();
    drawOverfitting();
  }
  if (get("open-all")) {
    get("open-all").addEventListener("click", () => sections().forEach((s) => { s.open = true; }));
    get("close-all").addEventListener("click", () => sections().forEach((s) => { s.open = false; }));
  }
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("#details details:not([open])")];
    closed.forEach((s) => { s.open = true; });
    root.dataset.printing = "true"; // figures are drawn in the colors of paper
    redraw();
  });
  addEventListener("afterprint", () => {
    closed.forEach((s) => { s.open = false; });
    delete root.dataset.printing;
    redraw();
  });
  addEventListener("hashchange", openTarget);
  dark.addEventListener("change", redraw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) {
      width = innerWidth;
      redraw();
    }
  });
  startRoc();
  paintSwatches();
  startAttacks();
  startHistogram();
  startLeakage();
  startSorting();
  addDownloads();
  openTarget();
  root.dataset.ready = "true";
})();
