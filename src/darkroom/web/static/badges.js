// What a run's state is called, and its colour.
import { el } from "/static/core.js";

const STATES = { training: "good", paused: "warn", failed: "bad", damaged: "bad", interrupted: "warn", stopped: "warn", finished: "good" };
export const stateBadge = (state) => el(`span.badge${STATES[state] ? `.${STATES[state]}` : ""}`, {}, state);
