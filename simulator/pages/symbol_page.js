// Does what TradingView's own script does with prices: one quote socket, one view per symbol. It also carries out the
// faults that the push socket announces.

import { block, page, suffers } from "./page.js";
import { Quotes, address } from "./quotes.js";
import { CardView, findHeaders, rename, swap } from "./views.js";

for (const end = performance.now() + page.busyMs; performance.now() < end;);

const [own, hidden] = findHeaders();
const cards = [...document.querySelectorAll(".tv-header__ticker, article[data-symbol]")].map((root) => new CardView(root));

/** Calls back once the header is displayed; at once if this page doesn't wait for that. */
function whenSeen(callback) {
  if (!suffers("fills_when_seen")) return callback();
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    callback();
  }).observe(own.root);
}

const views = { own, cards: [...cards, hidden].filter(Boolean), whenSeen };

const AT_ONCE = {
  page_frozen() { for (;;) block(); },
  page_reloads() { location.reload(); },
  price_element_replaced() { own.replacePrice(); },
  header_swaps() { swap(own, hidden); },
  session_deleted() { for (const quotes of Quotes.open) quotes.deleteOwnSessions(); },
  symbol_removed() { for (const quotes of Quotes.open) quotes.removeOwn(); },
  hibernated() { for (const quotes of Quotes.open) quotes.hibernateOwn(); },
};

function meet(news) {
  if (String(news.faults) !== String(page.faults)) change(news.faults);
  AT_ONCE[news.struck]?.();
}

function change(present) {
  page.faults = present;
  if (suffers("classes_renamed") !== page.isRenamed) rename([own, hidden].filter(Boolean));
  own.repaint();
}

const push = new WebSocket(address("/message-pipe-ws/public"));
push.onmessage = ({ data }) => meet(JSON.parse(data));
new Quotes(views);
if (suffers("two_sockets")) new Quotes(views);
own.show();
