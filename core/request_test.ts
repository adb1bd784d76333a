import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "./errors.ts";
import { defineRequest, MAX_REQUESTS, requestName, type VcpuRequest } from "./request.ts";
import { type Plugin, requestHook } from "./mod.ts";
import { scriptedVm } from "./testing/mod.ts";

Deno.test("all kinds of request work, and there is an end to them", () => {
  const all: VcpuRequest[] = [defineRequest("test-first")];
  while ((all.at(-1)?.id ?? 0) < MAX_REQUESTS - 1) all.push(defineRequest(`test-${all.length}`));
  assertThrows(() => defineRequest("test-too-many"), ArgumentError, 'request "test-too-many"');
  assertEquals(requestName(MAX_REQUESTS - 1), all.at(-1)?.name);
  assertEquals(requestName(MAX_REQUESTS), `request ${MAX_REQUESTS}`);

  const served: number[] = [];
  const plugin: Plugin = {
    name: "all",
    version: "1.0.0",
    setup(ctx) {
      for (const { id } of all) ctx.on(requestHook, id, () => void served.push(id));
    },
  };
  using m = scriptedVm({ plugins: [plugin] });
  for (const request of [...all].reverse()) m.vcpu.request(request);
  m.vm.runSync();
  assertEquals(served, all.map(({ id }) => id));
});
