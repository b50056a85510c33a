import { run } from "/tests/runner.js";
run("worker");
