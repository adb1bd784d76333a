import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Plugin } from "../core/mod.ts";
import { FakeIo, type FakeOptions, guest } from "./fixture_test.ts";
import { main, type RunRecord, Status, VERSION } from "./mod.ts";

async function cli(args: readonly string[], options: FakeOptions = {}) {
  const io = new FakeIo(options);
  const status = await main(args, io);
  assertEquals(io.listeners, 0);
  return { io, status, out: io.out, err: io.err };
}

Deno.test("a run: console on stdout, profile on stderr, the guest's code as status", async () => {
  for (const vendor of ["svm", "vmx", "metal"]) {
    const { status, out, err } = await cli([
      "run",
      guest("exits"),
      "--append",
      "cpuid=7 out=2",
      "--vendor",
      vendor,
    ]);
    assertEquals(status, 1);
    assertEquals(out, "exits: out 2\nexits: cpuid 7\n");
    assertStringIncludes(err, "trapline: the guest ended with code 1\n\nexit ");
    assertMatch(err, /\nCPUID +7 /);
    assertMatch(err, /\n {2}leaf 0h +7 +\d+\.\d% +do_cpuid\+[0-9a-f]+h/);
    assertMatch(err, new RegExp(`\n${vendor}: [\\d,]+ instructions, [\\d,]+ exits, .* MIPS\n$`));
  }
});

Deno.test("--success makes a code of the guest's status 0", async () => {
  const args = ["run", guest("exits"), "--append=out=1", "--quiet"];
  assertEquals((await cli([...args, "--success", "1"])).status, 0);
  assertEquals((await cli([...args, "--success", "3"])).status, 1);
});

Deno.test("a bad argument of the guest is the guest's affair", async () => {
  const { status } = await cli(["run", guest("exits"), "--append=out=banana", "--quiet"]);
  assertEquals(status, 5);
});

Deno.test("--quiet prints nothing but why the guest died", async () => {
  const good = await cli(["run", guest("exits"), "--append=out=1", "--quiet"]);
  assertEquals(good.err, "");
  const bad = await cli(["run", guest("hang"), "--quiet"]);
  assertEquals([bad.status, bad.err], [
    132,
    "trapline: vCPU 0 halted for good by HLT at RIP 100029h (main+19h), interrupts off\n",
  ]);
});

Deno.test("--no-profile leaves the totals", async () => {
  const { err } = await cli(["run", guest("exits"), "--append=out=1", "--no-profile"]);
  assertMatch(err, /^trapline: .*code 1\n\d+ instructions, \d+ exits, \d\.\d+ s, \d+\.\d MIPS\n$/);
});

Deno.test("a triple fault ends in a report, then the profile", async () => {
  const { status, err } = await cli(["run", guest("triple"), "--last-exits=3", "--top=1"]);
  assertEquals(status, 134);
  assertStringIncludes(err, "trapline: triple fault: #UD at RIP 10002ch (main+1ch); gate 6");
  assertStringIncludes(err, "\ncode at 10002ch (main+1ch): ud2\n");
  assertMatch(err, /\nlast exits\n(?: {2}#\d+ .*\n){3}\nexit /);
  assertStringIncludes(err, "more  ");
});

Deno.test("a death is shown with the instructions that led there, found by running it again", async () => {
  const one = await cli(["run", guest("wildjump"), "--last-instructions=3"]);
  assertStringIncludes(
    one.err,
    "last instructions, found by running it again\n" +
      "  10005bh        main+4bh  lidt [rsp+6h]\n" +
      "  100060h        main+50h  jmp rbx\n" +
      "  500000000000h            nothing there\n" +
      "    #PF at RIP 500000000000h: supervisor instruction fetch, not present",
  );
  assertEquals(one.out, "wildjump: to 0000500000000000\n"); // and not twice
  const none = await cli(["run", guest("wildjump"), "--last-instructions=0"]);
  assertEquals(none.err.includes("last instructions"), false);
  // In real mode: waits for LSR bit 0, then halts with interrupts off.
  const wait = new Uint8Array([0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb, 0xfa, 0xf4]);
  const typed = await cli(["run", "wait", "--format=flat"], {
    files: { wait },
    stdin: ReadableStream.from([new TextEncoder().encode("typed")]),
  });
  assertStringIncludes(typed.err, "last instructions: what was typed cannot be typed again");
  const long = await cli(["run", guest("spin"), "--max-instructions=101e6"]);
  assertStringIncludes(long.err, "last instructions: --last-instructions 16 finds them");
});

Deno.test("a limit ends in a report of where the guest was", async () => {
  const { status, err } = await cli(["run", guest("spin"), "--max-instructions=50_000_000"]);
  assertEquals(status, 124);
  assertStringIncludes(err, "the run's limit was reached with vCPU 0 at RIP 10002");
  assertStringIncludes(err, "It loops: all of the last");
  assertStringIncludes(err, "50,000,000 instructions, ");
});

Deno.test("--json writes the same as data", async () => {
  const { io, status } = await cli(
    ["run", guest("exits"), "--append=rdmsr=3", "--json", "out.json", "--memory=16M", "--quiet"],
  );
  assertEquals(io.closed, ["out.json"]);
  const record = JSON.parse(io.written["out.json"] ?? "") as RunRecord;
  assertEquals([record.schema, record.version, record.status], ["trapline-run", 1, status]);
  assertEquals(record.command, {
    image: guest("exits"),
    vendor: "svm",
    cpu: null,
    ignoreMsrs: false,
    avic: true,
    apicv: false,
    ipiv: false,
    memory: 16 * 2 ** 20,
    cpus: 1,
    pcpus: 1,
    quantum: null,
    seed: null,
    append: "rdmsr=3",
    modules: [],
    realTime: false,
    maxInstructions: null,
  });
  assertEquals(record.end, { reason: "exit-code", code: 1, text: "the guest ended with code 1" });
  assertEquals(record.postMortem, null);
  const { profile } = record;
  assert(profile !== null);
  assertEquals([profile.schema, profile.version], ["trapline-exit-profile", 1]);
  assertEquals([profile.instructions, profile.exits], [record.instructions, record.exits]);
  assertEquals(profile.reasons.reduce((sum, { count }) => sum + count, 0), record.exits);
  assert(record.wallMs > 0 && profile.wallMs === record.wallMs);
  assertStringIncludes(io.written["out.json"] ?? "", "}\n");
});

Deno.test("--json has the post-mortem, 64-bit values as strings", async () => {
  const { io } = await cli(["run", guest("wildjump"), "--json=j", "--no-profile"]);
  const record = JSON.parse(io.written.j ?? "");
  assertEquals(record.profile, null);
  assertEquals(record.status, 134);
  assertEquals(record.postMortem.schema, "trapline-post-mortem");
  assertEquals(record.postMortem.registers.RIP, "0x500000000000");
  assertEquals(
    record.postMortem.chain.map(({ event }: { event: { vector: number } }) => event.vector),
    [14, 8],
  );
});

Deno.test("--symbols adds names to those of the image", async () => {
  const text = new TextEncoder();
  const tables = {
    "System.map": text.encode("0000000000000000 A nothing\n0000000000007c00 T boot_sector\n"),
    "empty.map": text.encode("no list\n"),
    halt: new Uint8Array([0x90, 0xfa, 0xf4]), // nop; cli; hlt
  };
  const flat = ["run", "halt", "--format=flat", "--quiet"];
  const named = await cli([...flat, "--symbols=System.map"], { files: tables });
  assertEquals(named.err, "trapline: vCPU 0 halted for good by HLT at RIP 7c02h, interrupts off\n");
  const two = { ...tables, "other.map": text.encode("7c00 3 T boot\n8000 T end\n") };
  const both = await cli([...flat, "--symbols=System.map", "--symbols", "other.map"], {
    files: two,
  });
  assertStringIncludes(both.err, "by HLT at RIP 7c02h (boot+2h), interrupts off");
  const none = await cli([...flat, "--symbols=empty.map"], { files: tables });
  assertEquals(none.status, 64);
  assertMatch(none.err, /^trapline: --symbols empty.map: it holds no symbols .*\n$/);
});

Deno.test("a broken symbol table is said, and the image runs", async () => {
  const broken = await Deno.readFile(guest("exits"));
  const view = new DataView(broken.buffer);
  view.setUint32(32, 0x1000_0000, true); // e_shoff
  const { status, err } = await cli(["run", "broken", "--append=out=1", "--quiet"], {
    files: { broken },
  });
  assertEquals(status, 1);
  assertMatch(err, /^trapline: no symbols: image "broken": sh_type of section 0 .*\n$/);
});

Deno.test("two runs differ in nothing but time", async () => {
  const once = async () => {
    const { io } = await cli(["run", guest("tour"), "--json=j", "--quiet"]);
    const record = JSON.parse(io.written.j ?? "");
    record.wallMs = record.profile.wallMs = record.profile.mips = 0;
    return { record, out: io.out };
  };
  assertEquals(await once(), await once());
});

Deno.test("Ctrl-C ends the run with the profile so far", async () => {
  const io = new FakeIo();
  const done = main(["run", guest("spin")], io);
  await until(() => io.out.includes("for ever"));
  io.interrupt();
  assertEquals(await done, 130);
  assertMatch(
    io.err,
    /^trapline: stopped with vCPU 0 at RIP 10002[0-9a-f]h \(main\+1[0-9a-f]h\), .*: Ctrl-C\n/,
  );
  assertMatch(io.err, /\nsvm: [\d,]+ instructions/);
  assertEquals(io.exits, []);
});

Deno.test("SIGTERM does the same", async () => {
  const io = new FakeIo();
  const done = main(["run", guest("spin")], io);
  await until(() => io.out.includes("for ever"));
  io.interrupt("SIGTERM");
  assertEquals(await done, 130);
  assertMatch(io.err, /^trapline: stopped with vCPU 0 .*: SIGTERM\n/);
});

Deno.test("Ctrl-C before the guest runs counts, too; the second ends at once", async () => {
  const io = new FakeIo();
  const done = main(["run", guest("spin")], io);
  await until(() => io.listeners > 0);
  io.interrupt();
  io.interrupt();
  assertEquals(io.exits, [130]);
  assertEquals(await done, 130);
});

Deno.test("--real-time: time takes as long as it says", async () => {
  const words = ["run", guest("ticks"), "--machine=pc", "--append=ticks=60", "--json=j", "--quiet"];
  const { io } = await cli([...words, "--real-time"]);
  const { command, ticks, wallMs } = JSON.parse(io.written["j"] ?? "") as RunRecord;
  // 60 ticks of a millisecond on each of two ways, which a machine that is busy may make longer.
  assert(ticks > 120e6, `${ticks} ticks`);
  assert(command.realTime && wallMs > ticks / 1e6 - 5, `${ticks} ticks in ${wallMs} ms`);
  const other = await cli([...words, "--real-time", "--no-real-time"]);
  assertEquals((JSON.parse(other.io.written["j"] ?? "") as RunRecord).command.realTime, false);
});

Deno.test("a run in real time is not repeated for its last instructions", async () => {
  const { err } = await cli(["run", guest("wildjump"), "--real-time"]);
  assertStringIncludes(err, "last instructions: a run in real time cannot be repeated");
});

Deno.test("a terminal is raw while the guest runs", async () => {
  const stdin = ReadableStream.from([new Uint8Array()]);
  const { io } = await cli(["run", guest("exits"), "--append=out=1"], {
    stdin,
    terminal: { stdin: true },
  });
  assertEquals(io.raw, [true, false]);
  const other = await cli(["run", guest("exits"), "--append=out=1", "--no-stdin"], {
    stdin,
    terminal: { stdin: true },
  });
  assertEquals(other.io.raw, []);
});

Deno.test("a reader of stdout that is gone ends the run", async () => {
  const { status, err } = await cli(["run", guest("tour")], { stdoutLimit: 100 });
  assertEquals(status, 74);
  assertStringIncludes(err, "nobody reads standard output any more");
  for (const command of [["--help"], ["run", "--help"], ["plugins"], ["machines"], ["--version"]]) {
    const { status, err } = await cli(command, { stdoutLimit: 5 });
    assertEquals([status, err], [74, "trapline: nobody reads standard output any more\n"]);
  }
});

// mov dx, 3F8h; mov al, 'h'; out dx, al; out F4h, al; hlt
const FLAT = new Uint8Array([0xba, 0xf8, 0x03, 0xb0, 0x68, 0xee, 0xe6, 0xf4, 0xf4]);
const FLAT32 = new Uint8Array([0xba, 0xf8, 0x03, 0, 0, 0xb0, 0x68, 0xee, 0xe6, 0xf4, 0xf4]);

Deno.test("flat images are entered as asked for", async () => {
  const files = { "flat": FLAT, "flat32": FLAT32 };
  const run = async (...args: string[]) => {
    const { status, out } = await cli(["run", ...args, "--quiet"], { files });
    return [status, out];
  };
  assertEquals(await run("flat", "--format=flat"), [0xd1, "h"]);
  assertEquals(await run("flat", "--format=flat", "--load-address=0x8000"), [0xd1, "h"]);
  for (const entry of ["protected32", "long64"]) {
    const where = ["--load-address=1M", `--entry=${entry}`];
    assertEquals(await run("flat32", "--format=flat", ...where), [0xd1, "h"]);
  }
});

Deno.test("modules reach the guest", async () => {
  const files = { "one": new Uint8Array(10), "two words": new Uint8Array(5000) };
  const { out } = await cli(
    ["run", guest("tour"), "--quiet", "--module", "one", "--module", "two words"],
    { files },
  );
  assertStringIncludes(out, "boot: 2 modules\n");
});

Deno.test("standard input reaches the guest", async () => {
  // In real mode: waits for LSR bit 0, echoes, until a "q", which is answered on port F4h.
  const echo = new Uint8Array([
    ...[0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8], // mov dx, 3FDh; in al, dx; test al, 1; jz
    ...[0xba, 0xf8, 0x03, 0xec, 0xee, 0x3c, 0x71, 0x75, 0xf0], // mov dx, 3F8h; in; out; cmp al, "q"; jne
    ...[0xe6, 0xf4], // out F4h, al
  ]);
  const stdin = ReadableStream.from([
    new TextEncoder().encode("hello, "),
    new TextEncoder().encode("q!"),
  ]);
  const { status, out } = await cli(["run", "echo", "--format=flat", "--quiet"], {
    files: { echo },
    stdin,
  });
  assertEquals([status, out], [(0x71 << 1 | 1) & 0xff, "hello, q"]);
});

const WRONG: [what: string, args: string[], status: number, message: string][] = [
  ["no command", [], 64, "no command given"],
  ["no such command", ["walk"], 64, 'no command "walk"'],
  ["no image", ["run"], 64, "no image given"],
  ["two images", ["run", "a", "b"], 64, '"b" is one too many'],
  ["unknown option", ["run", "a", "--verndor=svm"], 64, "--vendor was meant?"],
  ["no such switch", ["run", "TOUR", "--avic=maybe"], 64, "it is on or off"],
  ["APICv under svm", ["run", "TOUR", "--apicv=on"], 64, "for --vendor vmx"],
  ["AVIC under vmx", ["run", "TOUR", "--vendor=vmx", "--avic=on"], 64, "for --vendor svm"],
  [
    "IPIs without APICv",
    ["run", "TOUR", "--vendor=vmx", "--apicv=off", "--ipiv=on"],
    64,
    "--ipiv on needs --apicv on",
  ],
  ["AVIC on metal", ["run", "TOUR", "--vendor=metal", "--avic=on"], 64, "for --vendor svm"],
  ["no such processor", ["run", "TOUR", "--cpu=z80"], 64, '--cpu z80: there is no processor "z80"'],
  ["no such feature", ["run", "TOUR", "--cpu=zen4,+x87"], 64, "no feature x87 of zen4; there are"],
  ["feature without sign", ["run", "TOUR", "--cpu=zen4,smap"], 64, "with + or - in front"],
  ["VMX without VMX", ["run", "TOUR", "--vendor=vmx", "--cpu=zen4"], 64, "vmx needs VMX, and zen4"],
  ["SVM without SVM", ["run", "TOUR", "--cpu=sapphire-rapids"], 64, "svm needs SVM, and sapphire"],
  ["no such vendor", ["run", "TOUR", "--vendor=toString"], 64, "there are svm, vmx, metal"],
  ["size", ["run", "TOUR", "--memory=big"], 64, "--memory big: not a size"],
  ["too much memory", ["run", "TOUR", "--memory=64T"], 64, "--memory 67108864M"],
  ["too little memory", ["run", "TOUR", "--memory=64K"], 66, "segment 0"],
  ["too many vCPUs", ["run", "TOUR", "--cpus=999"], 64, "--cpus 999: cpu: 999 processors"],
  [
    "too few processors",
    ["run", "TOUR", "--vendor=metal", "--cpus=2", "--pcpus=1"],
    64,
    "metal: a vCPU is a processor, and there is 1",
  ],
  ["not a number", ["run", "TOUR", "--cpus=two"], 64, "--cpus two: not a whole number"],
  ["no such tier", ["run", "TOUR", "--tier=3"], 64, "--tier 3: it is 1, 2 or auto"],
  ["no limit", ["run", "TOUR", "--max-instructions=0"], 64, "--max-instructions 0: not a whole"],
  ["missing file", ["run", "missing.elf"], 66, 'image "missing.elf": no such file'],
  ["a folder", ["run", "/"], 66, 'image "/": it is a folder'],
  ["no permission", ["run", "forbidden"], 66, "no permission"],
  ["missing module", ["run", "TOUR", "--module=nope"], 66, 'module "nope": no such file'],
  ["bad image", ["run", "text"], 66, "sector; --format flat takes any bytes"],
  ["empty image", ["run", "empty"], 66, 'image "empty": the file: its 0 bytes'],
  ["truncated image", ["run", "truncated"], 66, 'image "truncated": '],
  ["not multiboot", ["run", "text", "--format=multiboot"], 66, 'image "text": '],
  ["json", ["run", "TOUR", "--json=forbidden"], 74, '--json "forbidden": no permission'],
  ["format", ["run", "TOUR", "--format=coff"], 64, "formats are auto"],
  ["entry", ["run", "TOUR", "--entry=real"], 64, "--entry is for --format flat"],
  ["mode", ["run", "TOUR", "--format=flat", "--entry=x"], 64, "modes are real"],
  ["flat arguments", ["run", "TOUR", "--format=flat", "--append=x"], 64, "takes no arguments"],
  ["flat modules", ["run", "TOUR", "--format=flat", "--module=text"], 64, "takes no modules"],
  ["words behind plugins", ["plugins", "x"], 64, '"x" is one word too many'],
  ["words behind machines", ["machines", "x"], 64, '"x" is one word too many'],
];

for (const [what, args, expected, message] of WRONG) {
  Deno.test(`one clear message and a status: ${what}`, async () => {
    const tour = await Deno.readFile(guest("tour"));
    const { status, out, err } = await cli(
      args.map((word) => word.replace("TOUR", guest("tour"))),
      {
        files: {
          text: new TextEncoder().encode("not an image"),
          empty: new Uint8Array(),
          truncated: tour.subarray(0, 2000),
          forbidden: new Deno.errors.PermissionDenied("Permission denied (os error 13)"),
        },
      },
    );
    assertEquals([status, out], [expected, ""]);
    assertStringIncludes(err, message);
    // One line, and no stack trace.
    assertMatch(err, /^trapline: [^\n]+\n$/);
  });
}

Deno.test("help and version", async () => {
  const help = await cli(["run", "--help"]);
  assertEquals([help.status, help.err], [0, ""]);
  for (
    const word of ["--max-instructions N", "--json FILE", "  134    the guest had a triple fault"]
  ) {
    assertStringIncludes(help.out, word);
  }
  assert(help.out.split("\n").every((line) => line.length <= 100));
  assertStringIncludes((await cli(["--help"])).out, "trapline run IMAGE");
  assertEquals((await cli(["--version"])).out, `trapline ${VERSION}\n`);
  const config = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
  assertEquals(config.version, VERSION);
});

Deno.test("the list of plugins names modules that are exported", async () => {
  const { out } = await cli(["plugins"]);
  const config = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
  const rows = out.trimEnd().split("\n").map((line) => line.split(/ {2,}/));
  assert(rows.length >= 8);
  for (const [name, module, description] of rows) {
    assert(name !== undefined && description !== undefined);
    assert(config.exports[`.${module?.slice("@trapline/trapline".length)}`] !== undefined, module);
  }
});

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000 && !condition(); i++) await new Promise((r) => setTimeout(r, 5));
  assert(condition());
}

/** `out 604h, 2000h` and a halt, in real mode: switches a PC off. */
const SWITCH_OFF = new Uint8Array([0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4]);

Deno.test("--machine pc has what switches a PC off; the basic machine has not", async () => {
  const files = { "off.bin": SWITCH_OFF };
  const run = async (...options: string[]) => {
    const io = new FakeIo({ files });
    const status = await main(["run", "off.bin", "--format=flat", "--quiet", ...options], io);
    return { status, err: io.err };
  };
  assertEquals((await run("--machine=pc")).status, 0);
  assertEquals((await run()).status, Status.HALTED);
  assertEquals((await run("--machine=pc", "--part=acpipm=none")).status, Status.HALTED);
  const { status, err } = await run("--machine=xt");
  assertEquals([status, err.includes("there is no such machine; there are basic, pc")], [64, true]);
  const part = await run("--part", "hpet=none");
  assertEquals([part.status, part.err.includes("basic has no such part; it has pic")], [64, true]);
  assertEquals((await run("--part", "hpet")).status, 64);
});

Deno.test("--disk puts a disk on the bus of a PC", async () => {
  // Selects device 4 of the bus and ends with the low byte of its vendor: mov dx, cf8h;
  // mov eax, 80002000h; out dx, eax; mov dx, cfch; in al, dx; out f4h, al; hlt.
  const code = [
    ...[0xba, 0xf8, 0x0c, 0x66, 0xb8, 0x00, 0x20, 0x00, 0x80, 0x66, 0xef],
    ...[0xba, 0xfc, 0x0c, 0xec, 0xe6, 0xf4, 0xf4],
  ];
  const files = {
    "find.bin": Uint8Array.from(code),
    "disk.img": new Uint8Array(1024),
    "odd.img": new Uint8Array(1000),
  };
  const run = async (...options: string[]) => {
    const io = new FakeIo({ files });
    const status = await main(["run", "find.bin", "--format=flat", "--quiet", ...options], io);
    return { status, err: io.err };
  };
  assertEquals((await run("--machine=pc", "--disk=disk.img")).status, (0xf4 << 1 | 1) & 0xff);
  assertEquals((await run("--machine=pc")).status, (0xff << 1 | 1) & 0xff);
  const basic = await run("--disk=disk.img");
  assertEquals([basic.status, basic.err.includes("--machine pc")], [64, true]);
  assertEquals((await run("--machine=pc", "--disk=none.img")).status, Status.INPUT);
  assertEquals((await run("--machine=pc", "--disk=odd.img")).status, Status.INPUT);
});

Deno.test("--keep-disks writes the disks to their files at the end", async () => {
  const rom = new Uint8Array(4096).fill(0x90);
  // mov al, 21h; out f4h, al; hlt
  rom.set([0xb0, 0x21, 0xe6, 0xf4, 0xf4], 0xff0);
  const disk = new Uint8Array(1024).fill(7);
  const words = ["run", "rom.bin", "--format=firmware", "--machine=pc", "--quiet", "--disk=disk"];
  const io = new FakeIo({ files: { "rom.bin": rom, disk } });
  assertEquals(await main(words, io), 0x43);
  assertEquals(io.writtenBytes, {});
  assertEquals(await main([...words, "--keep-disks"], io), 0x43);
  assertEquals(io.writtenBytes, { disk });
  assertEquals(io.closed, ["disk"]);
});

Deno.test("--format firmware runs a ROM from the reset vector", async () => {
  const rom = new Uint8Array(4096).fill(0x90);
  // mov al, 21h; out f4h, al; hlt
  rom.set([0xb0, 0x21, 0xe6, 0xf4, 0xf4], 0xff0);
  const run = async (...options: string[]) => {
    const io = new FakeIo({ files: { "rom.bin": rom, "odd.bin": rom.subarray(1) } });
    return { status: await main(["run", "--format=firmware", "--quiet", ...options], io), io };
  };
  assertEquals((await run("rom.bin")).status, 0x43);
  assertEquals((await run("rom.bin", "--machine=pc", "--vendor=metal")).status, 0x43);
  assertEquals((await run("rom.bin", "--append=x")).status, 64);
  const { status, io } = await run("odd.bin");
  assertEquals([status, io.err.includes("4095 bytes are not whole pages")], [Status.INPUT, true]);
});

Deno.test("--fw-cfg and --kernel are for firmware, which finds a serial console as well", async () => {
  const rom = new Uint8Array(4096).fill(0x90);
  // mov dx, 510h; mov ax, 20h; out dx, ax; inc dx; in al, dx; shr al, 2; out f4h, al; hlt
  const code = [0xba, 0x10, 0x05, 0xb8, 0x20, 0x00, 0xef, 0x42, 0xec, 0xc0, 0xe8, 0x02, 0xe6];
  rom.set([...code, 0xf4, 0xf4], 0xff0);
  const kernel = new Uint8Array(2048);
  new DataView(kernel.buffer).setUint32(0x202, 0x5372_6448, true);
  new DataView(kernel.buffer).setUint32(0x22c, 0x37ff_ffff, true);
  kernel.set([0x07, 0x02], 0x206);
  kernel[0x211] = 1;
  const files = { "rom.bin": rom, "nine.bin": Uint8Array.of(0x24), "kernel": kernel };
  const run = async (...options: string[]) => {
    const io = new FakeIo({ files });
    return { status: await main(["run", "rom.bin", "--quiet", ...options], io), io };
  };
  const first = async (...options: string[]) => {
    return (await run("--format=firmware", "--vendor=metal", ...options)).status >> 1;
  };
  assertEquals(await first(), 0x3e);
  assertEquals(await first("--fw-cfg=a/b=nine.bin"), 9);
  assertEquals(await first("--fw-cfg=z/b=nine.bin"), 0x3e);
  assertEquals(await first("--fw-cfg=etc/sercon-port=nine.bin"), 9);
  assertEquals(await first("--kernel=kernel", "--append=quiet", "--initrd=nine.bin"), 0x3e);
  assertEquals((await run("--format=flat", "--kernel=kernel")).status, Status.USAGE);
  assertEquals((await run("--format=firmware", "--fw-cfg=a/b")).status, Status.USAGE);
  assertEquals((await run("--format=firmware", "--fw-cfg=a/b=none.bin")).status, Status.INPUT);
  const { status, io } = await run("--format=firmware", "--kernel=nine.bin");
  assertEquals([status, io.err.includes("the kernel is no bzImage")], [Status.INPUT, true]);
});

Deno.test("--part and --plugin take plugins from modules", async () => {
  const writes: [string, number][] = [];
  const device = (name: string, base: number) => (): Plugin => ({
    name,
    version: "1.0.0",
    setup(ctx) {
      ctx.registerPio({
        name,
        base,
        length: 2,
        write: (_offset, _size, value) => void writes.push([name, value]),
      });
    },
  });
  const modules = {
    "./mine.ts": { default: device("mine", 0x604) },
    "./more.ts": { default: device("more", 0x700)() },
    "./none.ts": { default: 5 },
  };
  const run = async (...options: string[]) => {
    const io = new FakeIo({ files: { "off.bin": SWITCH_OFF }, modules });
    const status = await main(["run", "off.bin", "--format=flat", "--quiet", ...options], io);
    return { status, err: io.err };
  };
  const { status } = await run(
    "--machine=pc",
    "--part=acpipm=./mine.ts",
    "--plugin=./more.ts",
  );
  assertEquals([status, writes], [Status.HALTED, [["mine", 0x2000]]]);
  for (const path of ["./none.ts", "./missing.ts"]) {
    const { status, err } = await run(`--plugin=${path}`);
    assertEquals([status, err.includes(path)], [Status.INPUT, true]);
  }
});
