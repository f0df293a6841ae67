// Attacks of a page on its browser. Each fault of HOSTILE in faults.py starts one of them in every page opened later,
// before the page's other scripts. Nothing here knows who observes the page.
"use strict";
(() => {
  const { symbol, faults } = document.currentScript.dataset;
  const ELSEWHERE = "http://127.0.0.1:9/"; // the discard port: nothing listens there
  const always = (work, ms = 10) => setInterval(work, ms);
  const often = (work, rate) => always(() => { for (let count = 0; count < rate / 100; count += 1) work(); });

  /** Sends the page's scripts any quote, as if from its quote socket. */
  const socket = new WebSocket(`ws://${location.host}/message-pipe-ws/public`);
  function quote(fields) {
    const payload = JSON.stringify({ m: "qsd", p: ["qs", { n: symbol, s: "ok", v: fields }] });
    socket.dispatchEvent(new MessageEvent("message", { data: `~m~${payload.length}~m~${payload}` }));
  }

  const later = (work) => addEventListener("load", () => setTimeout(work, 500));
  const priceElement = () => document.querySelector('[data-qa-id="symbol-last-value"]');

  const HOSTILE = {
    floods_messages() { often(() => quote({ lp: 1 + Math.random(), pricescale: 100, minmov: 1 }), 3_000); },
    floods_console() { often(() => console.log("x".repeat(1000)), 3_000); },
    huge_message() { later(() => quote({ description: "x".repeat(10_000_000) })); },
    huge_price() { later(() => { priceElement().textContent = "9".repeat(10_000_000); document.title = priceElement().textContent; }); },
    huge_document() {
      later(() => {
        const block = document.createElement("div");
        block.innerHTML = "<i></i>".repeat(200_000);
        document.body.append(block);
      });
    },
    hoards_memory() { window.hoard = []; always(() => window.hoard.push(new Uint8Array(5e6).fill(1)), 50); },
    loops_dialogs() {
      later(async () => {
        const { block } = await import("./page.js");
        for (;;) { alert("1"); confirm("2"); prompt("3"); block(); } // dialogs return at once while the page is closed
      });
    },
    opens_windows() { always(() => window.open(location.href), 50); },
    closes_itself() { later(() => { window.open("", "_self"); window.close(); }); },
    leaves() {
      const places = [ELSEWHERE, "file:///etc/passwd", "data:text/html,gone"];
      later(() => always(() => { location.href = places[Math.floor(Math.random() * places.length)]; }, 50));
    },
    leaves_by_refresh() {
      const refresh = Object.assign(document.createElement("meta"), { httpEquiv: "refresh", content: `0;url=${ELSEWHERE}` });
      later(() => document.head.append(refresh));
    },
    reloads_without_end() { later(() => location.reload()); },
    downloads() {
      const link = Object.assign(document.createElement("a"), { href: "data:application/zip;base64,UEsFBg==", download: "x.zip" });
      later(() => always(() => link.click(), 50));
    },
    breeds_frames() { later(() => often(() => { const frame = document.body.appendChild(document.createElement("iframe")); frame.contentWindow.name = "x"; frame.remove(); }, 500)); },
    forges_messages() {
      const page = performance.timeOrigin;
      Object.prototype.toJSON = function forged() {
        const fields = { __proto__: null, lp: 1, pricescale: 1, minmov: 1 };
        return { __proto__: null, kind: "frame", page, at: page + performance.now(), symbol: "BINANCE:ETHUSD", status: "ok", fields };
      };
    },
    names_itself_badly() {
      addEventListener("readystatechange", () => { window.initData.symbolInfo.description = "\u202eevil\u0007\nname " + "x".repeat(1000); }, { capture: true, once: true });
    },
    sets_traps() {
      addEventListener("beforeunload", (event) => { event.preventDefault(); event.returnValue = "stay"; });
      window.permission = Notification.requestPermission();
      window.place = new Promise((answer) => {
        navigator.geolocation.getCurrentPosition(() => answer("told"), () => answer("refused"));
      });
      for (let count = 0; count < 5_000; count += 1) history.pushState({}, "", location.href);
      later(() => { window.print(); });
    },
  };

  for (const fault of faults.split(" ")) HOSTILE[fault]?.();
})();
