import { assertEquals } from "@std/assert";
import { TraplineError } from "../core/mod.ts";
import { Status, STATUS_MEANINGS, statusOf } from "./statuses.ts";

Deno.test("no status can be taken for a guest's code", () => {
  for (const status of Object.values(Status)) assertEquals(status % 2, 0);
  const listed = STATUS_MEANINGS.map(([status]) => status);
  assertEquals(listed, Object.values(Status).sort((a, b) => a - b));
  assertEquals(new Set(listed).size, listed.length);
});

Deno.test("each end has its status", () => {
  assertEquals(statusOf({ reason: "exit-code", code: 3 }, undefined), 3);
  assertEquals(statusOf({ reason: "exit-code", code: 3 }, 1), 3);
  assertEquals(statusOf({ reason: "exit-code", code: 1 }, 1), 0);
  assertEquals(statusOf({ reason: "exit-code", code: 0x1ff }, 0xff), 0xff);
  assertEquals(statusOf({ reason: "exit-code", code: 0x1ff }, 0x1ff), 0);
  assertEquals(statusOf({ reason: "reset" }, 1), 0);
  assertEquals(statusOf({ reason: "powered-off" }, 1), 0);
  assertEquals(statusOf({ reason: "halted", interruptsEnabled: true }, 1), 132);
  assertEquals(statusOf({ reason: "shutdown", vcpuId: 0 }, 1), 134);
  assertEquals(statusOf({ reason: "limit" }, 1), 124);
  assertEquals(statusOf({ reason: "stopped", detail: "" }, 1), 130);
  const error = new TraplineError("x");
  assertEquals(statusOf({ reason: "error", error, vcpuId: 0 }, 1), 70);
});
