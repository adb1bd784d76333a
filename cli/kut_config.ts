/**
 * The list of tests in a kvm-unit-tests tree, `x86/unittests.cfg`.
 *
 * @module
 */

/** A test as the list has it. */
export interface KutTest {
  /** Its name. */
  readonly name: string;
  /** Its image, in the folder `x86`. */
  readonly file: string;
  /** How many vCPUs; 1 if not given. */
  readonly smp: number;
  /** Arguments for the image. */
  readonly args: string;
  /** Options in QEMU's syntax, taken apart. */
  readonly params: readonly string[];
  /** Groups it belongs to. */
  readonly groups: readonly string[];
  /** Architecture it is for: i386 or x86_64; both if not given. */
  readonly arch: string | undefined;
  /** Seconds that it may take. */
  readonly timeout: number | undefined;
}

/** What of a test's options can be had here. */
export interface KutMachine {
  /** Bytes of RAM. */
  readonly memory: number;
  /** Whose processor is asked for, if it matters. */
  readonly processor: "amd" | "intel" | undefined;
  /** Features of the processor to switch on or off, by QEMU's names. */
  readonly features: ReadonlyMap<string, boolean>;
  /** Bits of a physical address, if it matters. */
  readonly physicalBits: number | undefined;
  /** Parts of the board that it wants gone. */
  readonly without: readonly string[];
  /** Options that ask for what there is not; empty if the test can run. */
  readonly unmet: readonly string[];
}

/** Words as a shell takes them apart: quotes hold words together and vanish. */
export function shellWords(text: string): string[] {
  const words: string[] = [];
  for (const [word] of text.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g)) {
    words.push(word.replaceAll(/'([^']*)'|"([^"]*)"/g, "$1$2"));
  }
  return words;
}

/**
 * Reads the list. Lines are `[name]` and `key = value`, a value in three double quotes may go over
 * several lines, `#` begins a comment. Keys that mean nothing here are passed over.
 */
export function parseUnittests(text: string): KutTest[] {
  const tests: { name: string; values: Map<string, string> }[] = [];
  const joined = text.replaceAll(/"""([^]*?)"""/g, (_, body: string) => body.replaceAll("\n", " "));
  for (const line of joined.split(/\r?\n/)) {
    const [, name] = /^\[(.*)\]\s*$/.exec(line) ?? [];
    if (name !== undefined) {
      tests.push({ name, values: new Map() });
      continue;
    }
    const [, key, value] = /^\s*([a-z_]+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (key !== undefined && value !== undefined) tests.at(-1)?.values.set(key, value);
  }
  return tests.map(({ name, values }) => {
    const number = (key: string): number | undefined => {
      const value = Number.parseInt(values.get(key) ?? "", 10);
      return Number.isNaN(value) ? undefined : value;
    };
    const params = values.get("qemu_params") ?? values.get("extra_params") ?? "";
    const append = /(?:^|\s)-append\s+('[^']*'|"[^"]*"|\S+)/.exec(params);
    return {
      name,
      file: values.get("file") ?? "",
      smp: number("smp") ?? 1,
      args: shellWords(`${values.get("test_args") ?? ""} ${append?.[1] ?? ""}`).join(" "),
      params: shellWords(params.replace(append?.[0] ?? "\0", "")),
      groups: shellWords(values.get("groups") ?? ""),
      arch: values.get("arch"),
      timeout: number("timeout"),
    };
  });
}

const MIB = 2 ** 20;
/** RAM of QEMU's, which tests count on where they say nothing. */
const DEFAULT_MEMORY: number = 128 * MIB;
/** Processors of QEMU's that are Intel's and have VMX. */
const INTEL_MODEL = /^(?:IvyBridge|Skylake|Cascadelake|Icelake|SapphireRapids|Haswell|Broadwell)/;
/** Images about what only Intel's processors have. */
const INTEL_ONLY: ReadonlySet<string> = new Set([
  "pks.flat",
  "pmu_lbr.flat",
  "pmu_pebs.flat",
  "tsx-ctrl.flat",
]);
/** Options without a word behind them, which change nothing here. */
const FLAGS: ReadonlySet<string> = new Set(["-enable-kvm", "-no-reboot", "-nodefaults"]);

/** What a test's options ask for. */
export function machineOf(test: KutTest): KutMachine {
  let memory = DEFAULT_MEMORY;
  const intel = test.groups.includes("vmx") || INTEL_ONLY.has(test.file);
  let processor: KutMachine["processor"] = intel
    ? "intel"
    : test.groups.includes("svm") || test.file.startsWith("svm")
    ? "amd"
    : undefined;
  const features = new Map<string, boolean>();
  let physicalBits: number | undefined;
  const without: string[] = [];
  const unmet: string[] = [];
  const { params } = test;
  for (let i = 0; i < params.length; i++) {
    const option = params[i] as string;
    if (FLAGS.has(option)) continue;
    const value = params[++i] ?? "";
    switch (option) {
      case "-m": {
        const [, count, unit] = /^(\d+)([mMgG]?)$/.exec(value) ?? [];
        if (count === undefined) unmet.push(`${option} ${value}`);
        else memory = Number(count) * (/g/i.test(unit ?? "") ? 2 ** 30 : MIB);
        break;
      }
      case "-cpu": {
        const [model = "", ...choices] = value.split(",");
        for (const choice of choices) {
          const [, bits] = /^phys-bits=(\d+)$/.exec(choice) ?? [];
          if (bits !== undefined) physicalBits = Number(bits);
        }
        if (choices.includes("vendor=AuthenticAMD")) processor = "amd";
        if (INTEL_MODEL.test(model) || choices.includes("vendor=GenuineIntel")) processor = "intel";
        for (const choice of choices) {
          const [, sign, feature] = /^([+-])(.+)$/.exec(choice) ?? [];
          if (feature !== undefined) features.set(feature, sign === "+");
        }
        if (features.get("vmx") === true) processor = "intel";
        break;
      }
      case "-overcommit":
        break;
      case "-machine":
      case "-M":
        for (const choice of value.split(",")) {
          if (choice === "pit=off") without.push("pit");
          else unmet.push(`${option} ${choice}`);
        }
        break;
      default:
        // A machine option or a device that the board has not.
        unmet.push(`${option} ${value}`.trim());
    }
  }
  return { memory, processor, features, physicalBits, without, unmet };
}

/** Whether a name or one of a test's groups matches one of the patterns, in which `*` stands for any text. */
export function matches(test: KutTest, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const source = pattern.split("*").map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&"));
    const whole = new RegExp(`^${source.join(".*")}$`);
    return [test.name, ...test.groups].some((name) => whole.test(name));
  });
}

/** Whether a test is a hypervisor itself: all images of its kind are, not all entries in its group. */
export function isHypervisor({ file, groups }: KutTest): boolean {
  return /^(?:svm|vmx)(?:_|\.)/.test(file) || groups.includes("svm") || groups.includes("vmx");
}

/** Whether a test is of calls to a hypervisor, which are undefined where there is none. */
export function callsHypervisor({ file, args }: KutTest): boolean {
  return file === "hypercall.flat" || (file === "vmexit.flat" && args === "vmcall");
}
