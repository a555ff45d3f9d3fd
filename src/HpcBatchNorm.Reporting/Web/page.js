"use strict";
// Values beneath the pointer, series that a click on the legend hides, and, on the dashboard, the page's newest state.
(() => {
    const data = new WeakMap(), hidden = new Map();
    const values = figure => {
        if (!data.has(figure)) data.set(figure, JSON.parse(figure.querySelector("script").textContent));
        return data.get(figure);
    };
    const number = v => Number(v.toPrecision(5)).toString();
    const nearest = (list, x) => {
        let low = 0, high = list.length - 1;
        while (high - low > 1) { const middle = (low + high) >> 1; if (list[middle] < x) low = middle; else high = middle; }
        return Math.abs(list[low] - x) <= Math.abs(list[high] - x) ? low : high;
    };
    let shown = null;
    const hide = () => { if (shown) { shown.querySelector(".tip")?.remove(); shown.querySelector(".cursor")?.remove(); shown = null; } };
    const show = event => {
        const plot = event.target.closest?.(".plot");
        if (plot !== shown) hide();
        if (!plot) return;
        const chart = values(plot.parentElement), svg = plot.querySelector("svg"), frame = svg.getBoundingClientRect();
        const [left, right, top, bottom] = chart.box, scale = svg.viewBox.baseVal.width / frame.width;
        const scaled = chart.log ? Math.log10 : v => v, low = scaled(chart.x[0]), high = scaled(chart.x[1]);
        const along = low + ((event.clientX - frame.left) * scale - left) / (right - left) * (high - low), at = chart.log ? 10 ** along : along;
        const off = hidden.get(key(plot.parentElement)) ?? new Set();
        const rows = chart.series.filter(s => !off.has(s.name)).map(s => { const i = nearest(s.x, at); return { name: s.name, style: s.style, x: s.x[i], y: s.y[i] }; });
        if (rows.length === 0) return;
        const x = rows.reduce((a, b) => Math.abs(a.x - at) <= Math.abs(b.x - at) ? a : b).x;
        const px = left + (scaled(x) - low) / (high - low) * (right - left);
        let line = svg.querySelector(".cursor"), tip = plot.querySelector(".tip");
        if (!line) { line = document.createElementNS("http://www.w3.org/2000/svg", "path"); line.setAttribute("class", "cursor"); svg.append(line); }
        line.setAttribute("d", `M${px} ${top}V${bottom}`);
        if (!tip) { tip = document.createElement("div"); tip.className = "tip"; plot.append(tip); }
        const list = document.createElement("ul");
        for (const row of rows) { const item = document.createElement("li"); item.className = "s" + row.style; item.textContent = `${row.name} ${number(row.y)}`; list.append(item); }
        tip.replaceChildren(document.createTextNode(`${chart.label} ${number(x)}`), list);
        if (px / scale > frame.width / 2) { tip.style.left = "auto"; tip.style.right = `${frame.width - px / scale + 8}px`; } else { tip.style.right = "auto"; tip.style.left = `${px / scale + 8}px`; }
        shown = plot;
    };
    const key = figure => figure.querySelector("figcaption b").textContent;
    const apply = () => {
        for (const figure of document.querySelectorAll("figure.chart")) {
            const off = hidden.get(key(figure)), items = [...figure.querySelectorAll(".legend li")];
            if (!off) continue;
            values(figure).series.forEach((series, i) => {
                const visible = !off.has(series.name);
                items[i].style.opacity = visible ? "" : ".35";
                for (const shape of figure.querySelectorAll(`svg .s${series.style}`)) shape.style.display = visible ? "" : "none";
            });
        }
    };
    document.addEventListener("pointermove", show);
    document.addEventListener("pointerdown", show);
    document.addEventListener("pointerleave", hide);
    document.addEventListener("click", event => {
        const item = event.target.closest?.(".legend li"), figure = item?.closest("figure.chart");
        if (!figure) return;
        const off = hidden.get(key(figure)) ?? new Set(), name = values(figure).series[[...item.parentElement.children].indexOf(item)].name;
        if (!off.delete(name)) off.add(name);
        hidden.set(key(figure), off);
        apply();
    });
    document.addEventListener("change", event => { if (event.target.form?.dataset.submit !== undefined) event.target.form.requestSubmit(); });
    const main = document.querySelector("main"), every = Number(main.dataset.refreshSeconds);
    if (!every) return;
    const refresh = async () => {
        try {
            const address = new URL(location.href);
            address.searchParams.set("since", main.dataset.version);
            const answer = await fetch(address, { cache: "no-store" });
            if (answer.status === 200) {
                const open = [...main.querySelectorAll("details[open]")].map(d => d.id);
                hide();
                main.innerHTML = await answer.text();
                main.dataset.version = answer.headers.get("X-Version");
                for (const id of open) document.getElementById(id)?.setAttribute("open", "");
                apply();
            }
            document.body.classList.remove("stale");
        } catch {
            document.body.classList.add("stale"); // the dashboard was stopped; it may come back
        }
        setTimeout(refresh, every * 1000);
    };
    setTimeout(refresh, every * 1000);
})();
