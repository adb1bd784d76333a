/**
 * `trapline kut` on a tree of images made here: 32-bit code that prints a text and ends with a code, in
 * the form that the suite's have.
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { FakeIo } from "./fixture_test.ts";
import { type KutRecord, main, Status } from "./mod.ts";

const LOAD = 0x10_0000;

/** A multiboot image with address fields: header, code, text. It ends with a status or what code puts in AL. */
function image(text: string, status: number | readonly number[], spin = false): Uint8Array {
  const code = [
    ...[0xbe, 0, 0, 0, 0], // mov esi, text
    ...[0x66, 0xba, 0xf8, 0x03], // mov dx, 3f8h
    ...[0xac, 0x84, 0xc0], // lodsb; test al, al
    ...[0x74, 0x03, 0xee, 0xeb, 0xf8], // jz +3; out dx, al; jmp lodsb
    ...typeof status === "number" ? [0xb0, status] : status, // mov al, status
    ...spin ? [0xeb, 0xfe] : [0xe6, 0xf4], // jmp $ or out f4h, al
    0xf4,
  ];
  const bytes = new Uint8Array(32 + code.length + text.length + 1);
  const view = new DataView(bytes.buffer);
  const fields = [
    0x1bad_b002,
    0x1_0000,
    -(0x1bad_b002 + 0x1_0000) >>> 0,
    LOAD,
    LOAD,
    0,
    0,
    LOAD + 32,
  ];
  fields.forEach((field, i) => view.setUint32(4 * i, field, true));
  bytes.set(code, 32);
  view.setUint32(33, LOAD + 32 + code.length, true);
  bytes.set(new TextEncoder().encode(text), 32 + code.length);
  return bytes;
}

const LIST = `
[good]
file = good.flat
groups = first
[bad]
file = bad.flat
[none]
file = none.flat
arch = i386
[extra]
file = good.flat
groups = nodefault
[hangs]
file = hangs.flat
groups = slow nodefault
[missing]
file = missing.flat
groups = unbuilt nodefault
[asks]
file = good.flat
qemu_params = -device edu
[intel]
file = good.flat
qemu_params = -cpu max,vendor=GenuineIntel
groups = other nodefault
[amd]
file = good.flat
qemu_params = -cpu Opteron_G1,vendor=AuthenticAMD
groups = other nodefault
[calls]
file = vmexit.flat
test_args = 'vmcall'
groups = calls nodefault
[hypervisor]
file = good.flat
groups = svm nodefault
[nested]
file = svm_npt.flat
groups = image nodefault
[unpaged]
file = paging.flat
qemu_params = -cpu max,+svm,-npt,-skinit
groups = features nodefault
[paged]
file = paging.flat
qemu_params = -cpu max,+svm
groups = features nodefault
[kept]
file = good.flat
qemu_params = -cpu max,-sse4_1,-nosuch
groups = features nodefault
[hypercalls]
file = apic.flat
groups = environment nodefault
[device]
file = environment.flat
groups = environment nodefault
`;

/** CPUID 8000_000Ah: whether there is nested paging. */
const NESTED_PAGING = [0xb8, 0x0a, 0, 0, 0x80, 0x0f, 0xa2, 0x88, 0xd0, 0x24, 1];
/** mov al, [ebx + 20]: how many modules there are, of which the suite takes one for its environment. */
const MODULES = [0x8a, 0x43, 20];

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

const FILES: Readonly<Record<string, Uint8Array>> = {
  "kut/config.mak": encode("SRCDIR=x\nARCH=x86_64\n"),
  "kut/x86/unittests.cfg": encode(LIST),
  "kut/x86/good.flat": image("PASS: a\nPASS: b\nSKIP: c\nSUMMARY: 3 tests, 1 skipped\n", 0),
  "kut/x86/bad.flat": image("PASS: a\nFAIL: b\n", 1),
  "kut/x86/vmexit.flat": image("PASS: a\n", 0),
  "kut/x86/hangs.flat": image("PASS: a\n", 0, true),
  "kut/x86/paging.flat": image("PASS: a\n", NESTED_PAGING),
  "kut/x86/apic.flat": image("PASS: a\n", MODULES),
  "kut/x86/environment.flat": image("PASS: a\n", MODULES),
};

async function kut(...args: string[]) {
  const io = new FakeIo({ files: FILES });
  const status = await main(["kut", ...args], io);
  assertEquals(io.listeners, 0);
  const json = io.written["out.json"];
  return { status, out: io.out, err: io.err, record: JSON.parse(json ?? "{}") as KutRecord };
}

Deno.test("the tests of the architecture run, and the score board says how they came out", async () => {
  const { status, out, err, record } = await kut("kut", "--json", "out.json");
  assertEquals(status, Status.DIFFERENT);
  assertStringIncludes(err, "1/3 PASS good (2 passed, 0 failed, 1 skipped, ");
  assertStringIncludes(err, "2/3 FAIL bad (1 passed, 1 failed, 0 skipped, ");
  assertStringIncludes(out, "3 tests: 1 passed, 1 failed, 1 skipped; subtests: 3 passed, 1 failed");
  assertEquals([record.schema, record.vendor, record.arch], ["trapline-kut", "metal", "x86_64"]);
  assertEquals(record.tests.map(({ name, outcome, reason }) => [name, outcome, reason]), [
    ["good", "pass", ""],
    ["bad", "fail", "b"],
    ["asks", "skip", "asks for what there is not: -device edu"],
  ]);
});

Deno.test("--filter takes names and groups; --vendor a hypervisor, which runs no other", async () => {
  assertEquals((await kut("kut", "--filter=first")).status, Status.OK);
  assertStringIncludes((await kut("kut", "--filter=extra,g*")).err, "2/2 PASS extra");
  for (const vendor of ["svm", "vmx"]) {
    const { status, err } = await kut("kut", "--filter=good,hypervisor", `--vendor=${vendor}`);
    assertEquals(status, Status.OK);
    assertStringIncludes(err, "1/2 PASS good");
    assertStringIncludes(err, "2/2 SKIP hypervisor");
    assertStringIncludes(
      (await kut("kut", "--filter=image", `--vendor=${vendor}`)).err,
      "1/1 SKIP nested (0 passed, 0 failed, 0 skipped, 0.0 s): it is a hypervisor",
    );
  }
});

Deno.test("a test of hypercalls runs under hypervisors only", async () => {
  assertStringIncludes((await kut("kut", "--filter=calls")).err, "SKIP calls");
  for (const vendor of ["svm", "vmx"]) {
    const { err } = await kut("kut", "--filter=calls", `--vendor=${vendor}`);
    assertStringIncludes(err, "PASS calls", vendor);
  }
});

Deno.test("features are switched off by QEMU's names; what cannot be is not run", async () => {
  const { err } = await kut("kut", "--filter=features");
  assertStringIncludes(err, "1/3 PASS unpaged");
  assertStringIncludes(err, "2/3 FAIL paged");
  assertStringIncludes(err, "3/3 SKIP kept");
  assertStringIncludes(err, "asks for what there is not: -cpu …,-nosuch\n");
});

Deno.test("only the test of hypercalls gets an environment without the test device, and only on metal", async () => {
  assertStringIncludes((await kut("kut", "--filter=environment")).err, "1/2 FAIL hypercalls");
  assertStringIncludes((await kut("kut", "--filter=environment")).err, "2/2 PASS device");
  const { err } = await kut("kut", "--filter=environment", "--vendor=svm");
  assertStringIncludes(err, "1/2 PASS hypercalls");
});

Deno.test("a test of one maker's processors runs on no other's", async () => {
  const runs = [["svm", "SKIP", "PASS"], ["vmx", "PASS", "SKIP"], ["metal", "PASS", "PASS"]];
  for (const [vendor, intel, amd] of runs) {
    const { err } = await kut("kut", "--filter=other", `--vendor=${vendor}`);
    assertStringIncludes(err, `${intel} intel`, vendor);
    assertStringIncludes(err, `${amd} amd`, vendor);
  }
  const { err } = await kut("kut", "--filter=other", "--cpu=max");
  assertStringIncludes(err, "SKIP intel (0 passed, 0 failed, 0 skipped, 0.0 s): it asks for");
});

Deno.test("--update keeps what a file has of other tests", async () => {
  const files: Record<string, Uint8Array> = { ...FILES, "out.json": new Uint8Array() };
  const run = async (...args: string[]): Promise<readonly [number, FakeIo]> => {
    const io = new FakeIo({ files });
    const status = await main(["kut", "kut", "--update=out.json", ...args], io);
    const text = io.written["out.json"];
    if (text !== undefined) files["out.json"] = encode(text);
    return [status, io];
  };
  const names = (): (readonly [string, number])[] =>
    (JSON.parse(new TextDecoder().decode(files["out.json"])) as KutRecord).tests
      .map(({ name, passed }) => [name, passed]);
  await run("--filter=bad");
  await run("--filter=good");
  assertEquals(names(), [["good", 2], ["bad", 1]]);
  files["kut/x86/good.flat"] = image("PASS: a\n", 0);
  await run("--filter=good");
  assertEquals(names(), [["good", 1], ["bad", 1]]);
  const [status, io] = await run("--filter=good", "--vendor=svm");
  assertEquals(status, Status.INPUT);
  assertStringIncludes(io.err, '--update "out.json": it is of other runs: ');
  assertEquals(names(), [["good", 1], ["bad", 1]]);
});

Deno.test("a test that is not built is skipped", async () => {
  const { status, err } = await kut("kut", "--filter=unbuilt");
  assertEquals(status, Status.OK);
  assertStringIncludes(err, "SKIP missing");
  assertStringIncludes(err, "missing.flat is not built");
});

Deno.test("a test that does not end is ended", async () => {
  const { status, err } = await kut("kut", "--filter=hangs", "--timeout=1");
  assertEquals(status, Status.DIFFERENT);
  assertStringIncludes(err, "timed out after 1 s");
  const limited = await kut("kut", "--filter=hangs", "--max-instructions=1e5");
  assertStringIncludes(limited.err, "the limit was reached");
});

Deno.test("--tier: both tiers retire the same instructions", async () => {
  const retired = async (tier: string): Promise<readonly number[]> => {
    const { record } = await kut("kut", "--json=out.json", `--tier=${tier}`);
    return record!.tests.map(({ instructions }) => instructions);
  };
  const interpreted = await retired("1");
  assertEquals(interpreted.some((count) => count > 0), true);
  assertEquals(await retired("2"), interpreted);
  const { status, err } = await kut("kut", "--tier=3");
  assertEquals(status, Status.USAGE);
  assertStringIncludes(err, "--tier 3: it is 1, 2 or auto");
});

Deno.test("--baseline makes the status one of regressions", async () => {
  const { record } = await kut("kut", "--json=out.json");
  const files = { ...FILES, "base.json": encode(JSON.stringify(record)) };
  const against = async (more: Readonly<Record<string, Uint8Array>>) => {
    const io = new FakeIo({ files: { ...files, ...more } });
    return [await main(["kut", "kut", "--baseline=base.json"], io), io.out] as const;
  };
  const [same, out] = await against({});
  assertEquals(same, Status.OK);
  assertStringIncludes(out, "nothing is worse");
  const [worse, text] = await against({ "kut/x86/good.flat": image("PASS: a\n", 0) });
  assertEquals(worse, Status.DIFFERENT);
  assertStringIncludes(text, "worse: good: 2 subtests passed, now 1\n");
  const [broken] = await against({ "base.json": encode("{}") });
  assertEquals(broken, Status.INPUT);
});

Deno.test("wrong command lines and trees are refused in a line", async () => {
  const cases: [args: string[], status: number, message: string][] = [
    [[], 64, "kut: no folder given"],
    [["a", "b"], 64, '"b" is one word too many'],
    [["kut", "--vendor=xen"], 64, "there is no such vendor"],
    [["kut", "--avic=on"], 64, "--avic is for --vendor svm"],
    [["kut", "--filter=zzz"], 64, "no test of kut for x86_64 is among zzz"],
    [["nowhere"], 66, 'kut "nowhere/x86/unittests.cfg": no such file'],
  ];
  for (const [args, status, message] of cases) {
    const result = await kut(...args);
    assertEquals(result.status, status, message);
    assertStringIncludes(result.err, message);
  }
});
