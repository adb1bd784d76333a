import { assert, assertEquals } from "@std/assert";
import { PATCHES } from "../patches/mod.ts";
import { FakeIo, type FakeOptions, guest } from "./fixture_test.ts";
import { main } from "./mod.ts";
import { Status } from "./statuses.ts";

async function run(
  args: readonly string[],
  options?: FakeOptions,
): Promise<{ readonly status: number; readonly io: FakeIo }> {
  const io = new FakeIo(options);
  return { status: await main(args, io), io };
}

Deno.test("patches are listed, one in a line, with their state", async () => {
  const { status, io } = await run(["patches"]);
  assertEquals(status, Status.OK);
  const lines = io.out.trimEnd().split("\n");
  assertEquals(lines.length, PATCHES.length);
  PATCHES.forEach(({ id, state }, k) => {
    assert(lines[k]!.startsWith(id) && lines[k]!.includes(state), lines[k]);
  });
});

Deno.test("lab prints a table for each scenario, and writes what it is asked to", async () => {
  const { status, io } = await run(["lab", "invlpga-ud", "--json", "/j", "--html", "/h"]);
  assertEquals([status, io.err], [Status.OK, ""]);
  assert(/exits +before +after +difference|exit +before +after +difference/.test(io.out), io.out);
  const [report] = JSON.parse(io.written["/j"]!);
  assertEquals([report.schema, report.patch.id], ["trapline-lab", "invlpga-ud"]);
  assert(io.written["/h"]!.startsWith("<!DOCTYPE html>"));
  assertEquals(io.closed.toSorted(), ["/h", "/j"]);
});

Deno.test("lab runs a guest of the user's own, with arguments", async () => {
  const { status, io } = await run(
    ["lab", "invlpga-ud", "--guest", guest("exits"), "--append", "cpuid=17", "--all"],
  );
  assertEquals(status, Status.OK);
  assert(/CPUID +leaf 0h +17 +17 +0/.test(io.out), io.out);
});

Deno.test("lab --matrix shows every combination", async () => {
  const { status, io } = await run(["lab", "--matrix", "invlpga-ud", "svme-intercepts"]);
  assertEquals(status, Status.OK);
  assert(/invlpga-ud +before +before +after +after\n/.test(io.out), io.out);
});

const WRONG: readonly (readonly [readonly string[], number, string])[] = [
  [["lab", "none"], Status.USAGE, 'there is no patch "none"; there are '],
  [["lab", "--append", "x"], Status.USAGE, "--append is for the guest"],
  [["lab", "--cpus", "0"], Status.USAGE, "--cpus 0"],
  [["lab", "--guest", "/missing"], Status.INPUT, 'image "/missing": no such file'],
  [["lab", "--matrix", "--html", "/h"], Status.USAGE, "--html"],
  [["lab", "--ripz"], Status.USAGE, "--rips was meant?"],
  [["patches", "x"], Status.USAGE, "one word too many"],
];

Deno.test("what is wrong is said in one line", async () => {
  for (const [args, wanted, message] of WRONG) {
    const { status, io } = await run(args);
    assertEquals(status, wanted, args.join(" "));
    assert(io.err.includes(message), io.err);
    assertEquals(io.err.trimEnd().split("\n").length, 1);
    assertEquals(io.out, "");
  }
});

Deno.test("a file that cannot be opened ends it before anything is run", async () => {
  const { status, io } = await run(["lab", "--json", "/j"], {
    files: { "/j": new Deno.errors.PermissionDenied("no") },
  });
  assertEquals([status, io.out], [Status.OUTPUT, ""]);
  assert(io.err.includes('--json "/j": no permission'), io.err);
});

Deno.test("nobody reading ends it, with one line that says so", async () => {
  const { status, io } = await run(["lab", "invlpga-ud"], { stdoutLimit: 10 });
  assertEquals(status, Status.OUTPUT);
  assertEquals(io.err, "trapline: nobody reads standard output any more\n");
});

Deno.test("lab --help names every option", async () => {
  const { status, io } = await run(["lab", "--help"]);
  assertEquals(status, Status.OK);
  for (const option of ["guest", "cpus", "pcpus", "json", "html", "matrix", "rips"]) {
    assert(io.out.includes(`--${option}`), option);
  }
});
