// The probe: what Pluto runs inside a TradingView symbol page, before any script of the page's own.
//
// It reads the page's own quote frames for the page's own symbol, the text of the price element, the title, and the
// page's facts (resolved symbol, structured data), and tells each to Python through one CDP binding.
// It judges nothing: what may be believed is decided in feed.py. It never changes what the page shows to its scripts,
// never uses requestAnimationFrame (2/s in a page that isn't in front), and never waits for anything.
//
// Every message is a JSON object with `kind`, `page` (performance.timeOrigin, which names the document), and `at`, the
// page's clock in ms since the epoch:
//   start {}                                  a document begins
//   document {title, symbol, notFound, check, loaded}
//                                             what sort of document it is, once it can be told, and whenever that changes
//   page  {…facts}                            once they are there, and whenever address or symbol change
//   frame {symbol, status, fields, error}     quote frames of the page's own symbol that came together; fields are partial
//   price {text}                              the price element's whole text, when no recent frame explains it
//   title {text}                              a title with an arrow in it, while there is neither frame nor element
//   long  {ms}                                this page kept the renderer busy for so long
//   pulse {feed, proven, text, explained, title, mode}
//                                             every 2 s: the page is running, and this is what each strategy has
((settings) => {
  const tell = window[settings.binding];
  delete window[settings.binding]; // neither the page nor a frame in it may speak for us
  // A service worker would answer for every page of the site; what Playwright puts in its way can be got round.
  delete Navigator.prototype.serviceWorker;
  delete window.ServiceWorkerContainer;
  if (window.top !== window || location.protocol === "chrome-error:") return;

  const LOOK_MS = 500;
  const EXPLAINED_MS = 2500; // the page paints a frame at most this long after it came (125 ms throttle, timers late)
  const LONG_MS = 2000;

  const MAX_TEXT = 200; // characters of a title or an element: no price is longer
  const MAX_WALL_TEXT = 20_000; // characters of a document in which a wall's words are looked for

  const stringify = JSON.stringify;
  const page = performance.timeOrigin;
  const sincePage = performance.now.bind(performance);
  const now = () => page + sincePage();
  let sentSince = 0; // ms
  let sentCount = 0;

  /** Python refuses what is longer, and whoever sends more for long: so no more than shows it is sent. */
  function send(kind, message) {
    const at = now();
    if (at - sentSince > 1000) [sentSince, sentCount] = [at, 0];
    sentCount += 1;
    if (sentCount > settings.maxRate) return;
    tell(stringify({ kind, page, at, ...message }).slice(0, settings.maxMessage + 1));
  }

  const proven = { socket: 0, dom: 0, title: 0 }; // ms at which each strategy last saw its feed alive
  let feed = null; // the socket that quotes this page's symbol
  let recentPrices = []; // [{price, until}] of the last frame, and of those it replaced in the last EXPLAINED_MS

  // --- the page's own quote socket ---------------------------------------------------------------------------------

  /** The payloads of a socket.io message: ~m~LENGTH~m~PAYLOAD, several to a message, LENGTH in UTF-16 units. */
  function* payloadsOf(message) {
    const header = /~m~(\d+)~m~/y;
    for (let match; (match = header.exec(message)); ) {
      const end = header.lastIndex + Number(match[1]);
      yield message.slice(header.lastIndex, end);
      header.lastIndex = end;
    }
  }

  /** "BINANCE:BTCUSD" from a frame's name, which can be a spec: ={"symbol":"BINANCE:BTCUSD",…} */
  function symbolOf(name) {
    if (typeof name !== "string" || !name.startsWith("=")) return name;
    try {
      return JSON.parse(name.slice(1)).symbol;
    } catch {
      return name;
    }
  }

  /** The quote that a payload carries: {n, s, v, errmsg}; null if it carries none. */
  function quoteOf(payload) {
    if (!payload.includes('"qsd"')) return null;
    try {
      const { m, p } = JSON.parse(payload);
      return m === "qsd" ? p[1] : null;
    } catch {
      return null;
    }
  }

  /** The frames of the page's own symbol in one message. Parts of one change come together: they are merged. */
  function* framesOf(payloads) {
    let frame = null;
    for (const quote of payloads.map(quoteOf)) {
      if (symbolOf(quote?.n) !== settings.symbol) continue;
      const { s: status, v, errmsg: error } = quote;
      const isPriceNext = frame?.fields.lp !== undefined && v?.lp != null;
      if (frame !== null && (isPriceNext || frame.status !== status)) {
        yield frame;
        frame = null;
      }
      frame ??= { symbol: settings.symbol, status, fields: {}, error };
      for (const name in v) if (v[name] !== null) frame.fields[name] = v[name]; // null says nothing new
    }
    if (frame !== null) yield frame;
  }

  function onSocketMessage(socket, data) {
    if (typeof data !== "string") return;
    const payloads = [...payloadsOf(data)];
    if (socket === feed && payloads.length) proven.socket = now();
    for (const frame of framesOf(payloads)) {
      feed = socket;
      proven.socket = now();
      if (frame.fields.lp !== undefined) rememberPrice(Number(frame.fields.lp));
      send("frame", frame);
    }
  }

  function rememberPrice(price) {
    recentPrices = recentPrices.filter((recent) => proven.socket - recent.until < EXPLAINED_MS);
    if (recentPrices.length) recentPrices.at(-1).until = proven.socket;
    recentPrices.push({ price, until: Infinity });
  }

  const NativeWebSocket = window.WebSocket;
  window.WebSocket = new Proxy(NativeWebSocket, {
    construct(target, args, newTarget) {
      const socket = Reflect.construct(target, args, newTarget);
      socket.addEventListener("message", (event) => onSocketMessage(socket, event.data));
      return socket;
    },
  });

  const feedState = () =>
    feed === null ? "none" : feed.readyState === NativeWebSocket.OPEN ? "open" : "closed";

  // --- the price element -------------------------------------------------------------------------------------------

  const HEADERS = ".js-symbol-page-header-root, .js-symbol-header-ticker";
  const PRICES = '[data-qa-id="symbol-last-value"], .js-symbol-last';
  let element = null;
  let shownText = "";
  const observer = new MutationObserver(onRepaint);

  /** The page's own price element: the one inside the symbol header, else the only one marked so; never a menu's or a card's. */
  function findElement() {
    for (const header of document.querySelectorAll(HEADERS)) {
      const inside = header.querySelector(PRICES);
      if (inside) return inside;
    }
    const marked = document.querySelectorAll('[data-qa-id="symbol-last-value"]');
    return marked.length === 1 ? marked[0] : null;
  }

  function followElement() {
    const found = findElement();
    if (found === element) return;
    element = found;
    observer.disconnect();
    if (element === null) return;
    observer.observe(element, { childList: true, subtree: true, characterData: true });
    onRepaint();
  }

  const elementText = () => (element?.isConnected ? element.textContent.slice(0, MAX_TEXT) : "");

  /** Whether a recent frame said this price; a page that prints fewer decimals than the frame has rounds it. */
  function isExplainedByFrame(text) {
    const shown = text.replaceAll(",", "");
    const step = 10 ** -(shown.split(".")[1]?.length ?? 0);
    return recentPrices.some(
      ({ price, until }) => Math.abs(price - Number(shown)) <= step * 0.501 && now() - until < EXPLAINED_MS,
    );
  }

  function onRepaint() {
    const text = elementText();
    if (text === "" || text === shownText) return;
    shownText = text;
    proven.dom = now();
    if (!isExplainedByFrame(text)) send("price", { text });
  }

  /** "realtime", "delayed" … as the page's own mark beside the price says. */
  function dataMode() {
    const mark = document.querySelector(HEADERS)?.querySelector(".js-data-mode");
    return mark?.className.match(/tv-data-mode--(\w+)/)?.[1];
  }

  // --- the title ---------------------------------------------------------------------------------------------------

  let keptTitle = null;
  let seenTitle = "";
  const titleOfDocument = Object.getOwnPropertyDescriptor(Document.prototype, "title");
  const fullTitle = () => keptTitle ?? titleOfDocument.get.call(document);
  const shownTitle = () => fullTitle().slice(0, MAX_TEXT);

  function lookAtTitle() {
    const title = shownTitle();
    if (title === seenTitle || !/[▲▼]/.test(title)) return;
    seenTitle = title;
    proven.title = now();
    if (element === null && feedState() !== "open") send("title", { text: title });
  }

  // --- the page's facts --------------------------------------------------------------------------------------------

  let toldPlace = "";

  function structuredOffer() {
    for (const block of document.querySelectorAll('script[type="application/ld+json"]')) {
      try {
        const data = JSON.parse(block.textContent);
        if (data["@type"] === "FinancialProduct" && data.offers) return data.offers;
      } catch {
        // a block of another kind, or broken: not ours to judge
      }
    }
    return null;
  }

  function tellFacts() {
    const info = window.initData?.symbolInfo;
    const place = `${location.href} ${info?.resolved_symbol}`;
    if (place === toldPlace) return;
    toldPlace = place;
    send("page", {
      url: location.href,
      title: shownTitle(),
      resolved: info?.resolved_symbol,
      description: info?.description,
      currency: info?.currency,
      offer: structuredOffer(),
      notFound: document.querySelector(".tv-http-error-page") !== null,
      simulated: document.querySelector('meta[name="generator"][content="pluto-simulator"]') !== null,
    });
  }

  // --- what sort of document this is: a wall's facts are told too -------------------------------------------------

  const wallTexts = new RegExp(settings.wallTexts, "i");
  let isLoaded = false;
  let toldDocument = "";

  const asksForCheck = () =>
    document.querySelector(settings.wallForms) !== null ||
    wallTexts.test((document.body?.textContent ?? "").slice(0, MAX_WALL_TEXT));

  function tellDocument() {
    const symbol = window.initData?.symbolInfo != null || document.querySelector(HEADERS) !== null;
    const facts = {
      title: symbol ? "" : shownTitle(), // a symbol page's can change with every price
      symbol,
      notFound: document.querySelector(".tv-http-error-page") !== null,
      check: !symbol && asksForCheck(),
      loaded: isLoaded,
    };
    const text = stringify(facts);
    if (text === toldDocument) return;
    toldDocument = text;
    send("document", facts);
  }

  // --- slimming: what a page nobody looks at needn't do ------------------------------------------------------------

  function slim() {
    // Each change of the title costs the browser process about 1.5 ms; the page can still read back what it set.
    Object.defineProperty(document, "title", {
      configurable: true,
      get: fullTitle,
      set: (title) => {
        keptTitle = String(title);
        lookAtTitle();
      },
    });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("body { display: none !important }");
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  }

  // --- start -------------------------------------------------------------------------------------------------------

  function look() {
    tellDocument();
    tellFacts();
    followElement();
    lookAtTitle();
  }

  function beat() {
    const text = elementText();
    const explained = text === "" || isExplainedByFrame(text);
    const title = shownTitle() === seenTitle ? seenTitle : "";
    send("pulse", { feed: feedState(), proven, text, explained, title, mode: dataMode() });
  }

  /** Facts are read before the page's deferred scripts run, so that no frame comes earlier. */
  function start() {
    if (document.readyState === "loading") return;
    document.removeEventListener("readystatechange", start);
    look();
    setInterval(look, LOOK_MS);
  }

  send("start");
  if (settings.slim) slim();
  setInterval(beat, settings.pulse * 1000);
  // An endless loop freezes every page of the renderer; only the page it runs in sees it as its own.
  new PerformanceObserver((list) => {
    for (const { name, duration } of list.getEntries()) if (name === "self" && duration > LONG_MS) send("long", { ms: duration });
  }).observe({ entryTypes: ["longtask"] });
  document.addEventListener("readystatechange", start);
  const onLoaded = () => {
    isLoaded = true;
    tellDocument();
  };
  window.addEventListener("DOMContentLoaded", onLoaded, { capture: true, once: true });
  start();
})
