import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ArgumentError } from "../core/mod.ts";
import { compareVendors, differsForGuest, formatComparison } from "./vendors.ts";
import { formatVendorTable, runVendorTable } from "./vendor_table.ts";

async function guest(name: string, commandLine = "") {
  const file = new URL(`../examples/guests/${name}/${name}.elf`, import.meta.url);
  return { name, image: await Deno.readFile(file), commandLine };
}

Deno.test("a guest sees no difference between the vendors, and all take its CPUID exits", async () => {
  const comparison = await compareVendors(await guest("exits", "cpuid=7 rdmsr=5 out=3"));
  assertEquals(comparison.runs.map(({ vendor }) => vendor), ["svm", "vmx", "metal"]);
  assertEquals(differsForGuest(comparison), false);
  const [svm, vmx, metal] = comparison.runs;
  assertEquals(svm!.exits, vmx!.exits);
  assert(metal!.exits < svm!.exits);
  const counts = (reason: string) => comparison.rows.find((row) => row.reason === reason)?.counts;
  assertEquals(counts("CPUID"), [7, 7, 7]);
  // The bare processor keeps EFER itself; the boot code reads it once more.
  assertEquals(counts("RDMSR"), [6, 6, 0]);
});

Deno.test("a guest that prints what CPUID says prints the same, for one processor is shown", async () => {
  const comparison = await compareVendors(await guest("tour"));
  assertEquals(differsForGuest(comparison), false);
  for (const { console } of comparison.runs) {
    assertStringIncludes(console, 'cpu: vendor "TraplineCPU!"');
    assertStringIncludes(console, "cpu: family 6 model 143 stepping 8");
  }
});

Deno.test("a guest of the local APIC leaves the same memory and registers, whoever delivers", async () => {
  const vendors = ["metal", "svm+avic", "vmx", "vmx+apicv+ipiv"];
  for (const commandLine of ["rounds=2", "rounds=2 x2apic"]) {
    const comparison = await compareVendors(await guest("apic", commandLine), { vendors });
    assertEquals(differsForGuest(comparison), false, commandLine);
    const [, , vmx, ipiv] = comparison.runs.map(({ exits }) => exits);
    assert(ipiv! < vmx! / 1.5, `${ipiv} ${vmx}`);
  }
});

Deno.test("guests with several vCPUs leave the same behind", async () => {
  const options = { cpus: 4, processors: 2 };
  const comparison = await compareVendors(await guest("smp"), options);
  assertEquals(differsForGuest(comparison), false);
  assertStringIncludes(comparison.runs[1]!.console, "smp: 4 processors");
});

Deno.test("a difference is said, and counts", async () => {
  const one = await compareVendors(await guest("exits", "cpuid=2"), { vendors: ["svm", "vmx"] });
  const [difference] = one.differences;
  const other = { ...one, differences: [{ ...difference!, console: false }] };
  assertEquals(differsForGuest(other), true);
  assertStringIncludes(formatComparison(other), "it prints something else");
  const state = { pages: 2, firstPage: 0x3000, registers: [] };
  const memory = { ...one, differences: [{ ...difference!, state }] };
  assertStringIncludes(formatComparison(memory), "2 pages differ, the first at 3000h");
  // Several vCPUs may leave other memory behind.
  assertEquals([differsForGuest(memory), differsForGuest({ ...memory, cpus: 2 })], [true, false]);
});

Deno.test("vendors are two or more, each once, and known", async () => {
  const image = await guest("exits");
  for (const vendors of [["svm"], ["svm", "svm"], ["svm", "tdx"]]) {
    await assertRejects(() => compareVendors(image, { vendors }), ArgumentError);
  }
});

Deno.test("what accelerates interrupts saves exits under both vendors, and no guest sees it", async () => {
  const comparisons = await runVendorTable();
  for (const comparison of comparisons) {
    const { guest, runs } = comparison;
    const name = `${guest.name} ${guest.commandLine}`;
    assertEquals(differsForGuest(comparison), false, name);
    const [svm, avic, vmx, apicv, ipiv] = runs.map(({ exits }) => exits);
    assert(avic! < svm! && apicv! < vmx! && ipiv! <= apicv!, name);
  }
  const text = formatVendorTable(comparisons);
  assertEquals(text.split("\n").filter((line) => line.startsWith("ipistorm")).length, 2);
  assertEquals(text.includes("DIFFERENCE"), false);
  const [first] = comparisons;
  const [difference] = first!.differences;
  const seen = { ...first!, differences: [{ ...difference!, console: false }] };
  assertStringIncludes(formatVendorTable([seen]), "THE GUEST SEES A DIFFERENCE");
});
