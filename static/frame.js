/* Owns when the page paints: one animation frame for every job asked for since the last, and one clock that strikes each
   second. Never touches the document, and keeps no state of the board. */

const jobs = new Set();
let asked = false;

/** Run `job` in the next frame; asking twice before it runs it once. */
export function nextFrame(job) {
  jobs.add(job);
  if (asked) return;
  asked = true;
  requestAnimationFrame(runJobs);
}

/** The next frame is asked for last: a chart that a job has changed then draws before anything else, while styles are clean. */
function runJobs() {
  const due = [...jobs];
  jobs.clear();
  try {
    for (const job of due) job();
  } finally {
    asked = jobs.size > 0;
    if (asked) requestAnimationFrame(runJobs);
  }
}

/** Strikes "second". A hidden page skips strikes (the browser slows timers); none of its listeners count them. */
export const clock = new EventTarget();
setInterval(() => clock.dispatchEvent(new Event("second")), 1000);
