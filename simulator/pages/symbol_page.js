// What TradingView's own script does with prices: one quote socket, one view per symbol, each painted at most every
// 125 ms. And, told so by the push socket, what the faults ask of a page.
"use strict";
(() => {
  const OWN = window.initData.symbolInfo.resolved_symbol;
  const PAINT_MS = 125;
  const COLOUR_MS = 750;
  const SILENCE_MS = 20_000;
  const REOPEN_MS = 5_000;

  let faults = document.currentScript.dataset.faults.split(" ").filter(Boolean);
  let renamed = faults.includes("classes_renamed");
  const inWorker = faults.includes("socket_in_worker");

  const backwards = (names) => names.split(" ").map((name) => [...name].reverse().join("")).join(" ");
  const named = (name) => (renamed ? backwards(name) : name);
  const find = (root, name) => root.querySelector(`.${named(name)}`);

  // ---- Painting -----------------------------------------------------------------------------------------------

  const decimalsOf = (quote) => Math.round(Math.log10(quote.pricescale / quote.minmov));

  function formatted(number, decimals) {
    return number.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  }

  function signed(number, decimals) {
    return (number < 0 ? "\u2212" : "+") + formatted(Math.abs(number), decimals);
  }

  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function sharedLength(one, other) {
    let length = 0;
    while (length < one.length && one[length] === other[length]) length += 1;
    return length;
  }

  // The element that shows a price: unchanged digits, changed digits in colour, the last one raised if it is the fifth
  // decimal, a unit. Each part alone is wrong; their text together is right.
  class PriceElement {
    constructor(element) {
      this.element = element;
      this.text = "";
      this.parts = {
        kept: document.createTextNode(""), changed: document.createElement("span"),
        raised: document.createElement("sup"), unit: document.createTextNode(""),
      };
      element.replaceChildren(...Object.values(this.parts));
      this.parts.raised.remove();
    }

    paint(text, unit, hasRaised, colour) {
      if (text + unit === this.text) return;
      const { kept, changed, raised } = this.parts;
      const body = hasRaised ? text.slice(0, -1) : text;
      const length = sharedLength(body, this.text);
      setText(kept, body.slice(0, length));
      setText(changed, body.slice(length));
      if (hasRaised) this.raise(text.slice(-1));
      else raised.remove();
      setText(this.parts.unit, unit);
      this.text = text + unit;
      this.colour(colour);
    }

    raise(digit) {
      setText(this.parts.raised, digit);
      if (!this.parts.raised.isConnected) this.parts.changed.after(this.parts.raised);
    }

    colour(name) {
      clearTimeout(this.fading);
      this.parts.changed.className = name;
      this.fading = setTimeout(() => this.parts.changed.removeAttribute("class"), COLOUR_MS);
    }
  }

  // ---- Views: who shows a symbol --------------------------------------------------------------------------------

  class CardView {
    constructor(root, element) {
      this.symbol = root.dataset.symbol;
      this.root = root;
      this.price = new PriceElement(element);
      this.quote = {};
      this.waiting = 0;
      this.changed = false;
    }

    merge(values) {
      for (const [field, value] of Object.entries(values)) if (value !== null) this.quote[field] = value;
      this.changed = true;
      if (!this.waiting) this.repaint();
    }

    repaint() {
      clearTimeout(this.waiting);
      this.changed = false;
      this.show();
      this.waiting = setTimeout(() => { this.waiting = 0; if (this.changed) this.repaint(); }, PAINT_MS);
    }

    show() {
      if (this.quote.lp !== undefined) this.showPrice(this.quote.lp);
    }

    showPrice(price) {
      const decimals = decimalsOf(this.quote);
      const colour = price < this.shown ? "falling-KLji300y" : "growing-KLji300y";
      this.price.paint(formatted(price, decimals), "", decimals === 5, colour);
      this.shown = price;
    }
  }

  class HeaderView extends CardView {
    constructor(root) {
      super(find(root, "js-symbol-header-ticker"), find(root, "js-symbol-last"));
      this.header = root;
    }

    show() {
      if (faults.includes("unreadable_price")) this.price.paint("3.77", "\u2006T", false, "growing-KLji300y");
      else if (this.quote.lp !== undefined) this.showQuote();
    }

    showQuote() {
      const quote = this.quote;
      this.showPrice(quote.lp * (faults.includes("dom_disagrees") ? 1.01 : 1));
      this.root.classList.add(named("quote-ticker-inited"));
      setText(find(this.root, "js-symbol-change"), signed(quote.ch, decimalsOf(quote)));
      setText(find(this.root, "js-symbol-change-pt"), `${signed(quote.chp, 2)}%`);
      setText(find(this.root, "js-symbol-currency"), quote.currency_code);
      setText(find(this.root, "js-symbol-session-status"), "Market open");
      setText(find(this.root, "js-symbol-lp-time"), new Date(quote.lp_time * 1000).toISOString().slice(11, 19));
      this.showDataMode("realtime");
    }

    showDataMode(mode) {
      const names = ["js-data-mode", `tv-data-mode--${mode}`].map(named).join(" ");
      const element = find(this.root, "js-data-mode");
      if (!element.className.endsWith(names)) element.className = `${named("dataMode-zoF9r75I")} ${names}`;
    }

    // The same header under another element, as after a new rendering; what it knows stays.
    moveTo(root) {
      const { quote, shown } = this;
      this.header.replaceWith(root);
      clearTimeout(this.waiting);
      Object.assign(this, new HeaderView(root), { quote, shown });
      this.repaint();
    }

    rename() {
      const fresh = this.header.cloneNode(true);
      for (const element of [fresh, ...fresh.querySelectorAll("*")]) {
        if (element.className) element.className = backwards(element.className);
        if (element.dataset.qaId) element.dataset.qaId = backwards(element.dataset.qaId);
      }
      renamed = !renamed;
      this.moveTo(fresh);
    }

    replacePrice() {
      const old = this.price.element;
      old.replaceWith(old.cloneNode(false));
      this.price = new PriceElement(find(this.root, "js-symbol-last"));
      this.repaint();
    }
  }

  const header = new HeaderView(document.querySelector(`.${named("js-symbol-page-header-root")}`));
  const cardsIn = (selector) => [...document.querySelectorAll(selector)]
    .map((root) => new CardView(root, root.querySelector(".js-symbol-last")));
  const views = [...cardsIn(".tv-header__ticker"), header, ...cardsIn("article[data-symbol]")];

  // ---- The quote socket -----------------------------------------------------------------------------------------

  const address = (path) => {
    const from = encodeURIComponent(location.pathname.slice(1) + location.search);
    return `ws://${location.host}${path}?from=${from}&date=2026-11-20T10%3A12`;
  };

  class WorkerSocket {
    constructor(url) {
      this.worker = new Worker("/static/socket_worker.js");
      this.worker.onmessage = ({ data }) => {
        this[`on${data.type}`](data);
        if (data.type === "close") this.worker.terminate();
      };
      this.worker.postMessage({ open: url });
    }

    send(data) { this.worker.postMessage({ send: data }); }

    close(code) { this.worker.postMessage({ close: code }); }
  }

  class Quotes {
    constructor() {
      const Socket = inWorker ? WorkerSocket : WebSocket;
      this.socket = new Socket(address("/socket.io/websocket"));
      this.socket.onopen = () => this.subscribe();
      this.socket.onmessage = ({ data }) => this.hear(data);
      this.socket.onclose = () => this.reopen();
      this.watch();
    }

    watch() {
      clearTimeout(this.silence);
      this.silence = setTimeout(() => this.socket.close(4000), SILENCE_MS);
    }

    subscribe() {
      this.order("set_auth_token", "unauthorized_user_token");
      this.order("quote_create_session", "qs_simulated1");
      this.order("quote_add_symbols", "qs_simulated1", ...new Set(views.map((view) => view.symbol)));
      this.order("quote_create_session", "qs_simulated2");
      this.order("quote_add_symbols", "qs_simulated2", `=${JSON.stringify({ adjustment: "splits", symbol: OWN })}`);
    }

    order(name, ...parameters) {
      this.say(JSON.stringify({ m: name, p: parameters }));
    }

    say(payload) {
      this.socket.send(`~m~${payload.length}~m~${payload}`);
    }

    hear(message) {
      this.watch();
      for (let start = 0; start < message.length;) {
        const [head, length] = message.slice(start).match(/^~m~(\d+)~m~/);
        const end = start + head.length + Number(length);
        this.take(message.slice(start + head.length, end));
        start = end;
      }
    }

    take(payload) {
      if (payload.startsWith("~h~")) return this.say(payload);
      const { m, p } = JSON.parse(payload);
      if (m === "qsd" && p[1].s === "ok") this.quote(p[1].n, p[1].v);
    }

    quote(name, values) {
      const symbol = name.startsWith("=") ? JSON.parse(name.slice(1)).symbol : name;
      for (const view of views) if (view.symbol === symbol) view.merge(values);
    }

    reopen() {
      clearTimeout(this.silence);
      header.showDataMode("connecting");
      setTimeout(() => new Quotes(), REOPEN_MS);
    }
  }

  // ---- Faults ---------------------------------------------------------------------------------------------------

  const AT_ONCE = {
    page_frozen() { for (;;); },
    page_reloads() { location.reload(); },
    price_element_replaced() { header.replacePrice(); },
  };

  function meet(news) {
    if (String(news.faults) !== String(faults)) change(news.faults);
    AT_ONCE[news.struck]?.();
  }

  function change(present) {
    faults = present;
    if (faults.includes("classes_renamed") !== renamed) header.rename();
    header.repaint();
  }

  const push = new WebSocket(address("/message-pipe-ws/public"));
  push.onmessage = ({ data }) => meet(JSON.parse(data));
  new Quotes();
  header.show();
})();
