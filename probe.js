// The probe: what Pluto runs inside a TradingView symbol page, before any script of the page's own.
//
// It reads three things and tells each to Python through one CDP binding: the page's own quote frames for the page's
// own symbol, the text of the price element, and the page's facts (title, resolved symbol, structured data).
// It judges nothing: what may be believed is decided in scraper.py. It never changes what the page shows to its scripts,
// never uses requestAnimationFrame (2/s in a page that isn't in front), and never waits for anything.
//
// Every message is a JSON object with `kind` and `at`, the page's clock in ms since the epoch:
//   start {}                                  a document begins
//   frame {symbol, status, fields, error}     a quote frame of the page's own symbol; fields are partial
//   price {text}                              the price element's whole text, when no recent frame explains it
//   page  {…facts}                            once the document is there
//   pulse {proven, explained, feed}           every 2 s: the page is running; its feed was last proven alive at `proven`
((settings) => {
  if (window.top !== window) return;

  const FIND_ELEMENT_MS = 500;
  const EXPLAINED_MS = 2500; // the page paints a frame at most this long after it came (125 ms throttle, timers late)

  const tell = window[settings.binding];
  delete window[settings.binding]; // nothing else in the page needs it
  const stringify = JSON.stringify;
  const now = () => performance.timeOrigin + performance.now();
  const send = (kind, message) => tell(stringify({ kind, at: now(), ...message }));

  let provenAt = 0; // ms; the last frame, heartbeat or repaint
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

  function onQuoteFrame(socket, quote) {
    if (symbolOf(quote?.n) !== settings.symbol) return;
    feed = socket;
    const fields = quote.v ?? {};
    const at = now();
    if (fields.lp != null) {
      recentPrices = recentPrices.filter((recent) => at - recent.until < EXPLAINED_MS);
      if (recentPrices.length) recentPrices.at(-1).until = at;
      recentPrices.push({ price: Number(fields.lp), until: Infinity });
    }
    send("frame", { symbol: settings.symbol, status: quote.s, fields, error: quote.errmsg });
  }

  function onSocketMessage(socket, data) {
    if (typeof data !== "string") return;
    for (const payload of payloadsOf(data)) {
      if (payload.includes('"qsd"')) {
        try {
          const { m, p } = JSON.parse(payload);
          if (m === "qsd") onQuoteFrame(socket, p?.[1]);
        } catch {
          // not a quote frame after all
        }
      }
      if (socket === feed) provenAt = now();
    }
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

  const elementText = () => (element?.isConnected ? element.textContent : "");

  function isExplainedByFrame(text) {
    const price = Number(text.replaceAll(",", ""));
    return recentPrices.some((recent) => recent.price === price && now() - recent.until < EXPLAINED_MS);
  }

  function onRepaint() {
    const text = elementText();
    if (text === "" || text === shownText) return;
    shownText = text;
    provenAt = now();
    if (!isExplainedByFrame(text)) send("price", { text });
  }

  // --- the page's facts --------------------------------------------------------------------------------------------

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

  // --- slimming: what a page nobody looks at needn't do ------------------------------------------------------------

  let keptTitle = null;
  const titleOfDocument = Object.getOwnPropertyDescriptor(Document.prototype, "title");
  const shownTitle = () => keptTitle ?? titleOfDocument.get.call(document);

  function slim() {
    // Each change of the title costs the browser process about 1.5 ms; the page can still read back what it set.
    Object.defineProperty(document, "title", {
      configurable: true,
      get: shownTitle,
      set: (title) => (keptTitle = String(title)),
    });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync("body { display: none !important }");
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  }

  // --- start -------------------------------------------------------------------------------------------------------

  function start() {
    tellFacts();
    followElement();
    setInterval(followElement, FIND_ELEMENT_MS);
  }

  send("start");
  if (settings.slim) slim();
  setInterval(() => {
    const text = elementText();
    send("pulse", { proven: provenAt, explained: text === "" || isExplainedByFrame(text), feed: feedState() });
  }, settings.pulse * 1000);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start, { once: true });
  else start();
})
