/**
 * A report as text.
 *
 * @module
 */

import type { SystemState } from "../../core/mod.ts";
import {
  bitNames,
  CR0_BITS,
  CR4_BITS,
  describeSegment,
  EFER_BITS,
  entryFlags,
  flagNames,
  XCR0_BITS,
} from "./bits.ts";
import type { ChainLink } from "./chain.ts";
import { digits, exceptionName, hex } from "./hexadecimal.ts";
import type { ReturnAddress } from "./calls.ts";
import type { OtherVcpu } from "./others.ts";
import {
  type CodeBytes,
  type NamedWalk,
  placeKey,
  type PostMortem,
  type StackWords,
} from "./report.ts";

/** An address's name with two blanks in front, nothing if it has none. */
type Named = (address: bigint) => string;

/** The report as text. Lines end in a line feed. */
export function formatPostMortem(report: PostMortem): string {
  const { mode, cpl, system } = report;
  const where = mode === undefined ? "" : `, ${mode}, CPL ${cpl}`;
  const named: Named = (address) => {
    const place = report.places[placeKey(address)];
    return place === undefined ? "" : `  ${place}`;
  };
  const sections: [title: string, lines: string[]][] = [
    [report.verdict, [...report.notes]],
    [`vCPU ${report.vcpuId}${where}`, [
      ...registerLines(report.registers),
      ...(system === undefined ? [] : systemLines(system)),
    ]],
    ["other vCPUs", otherLines(report.others)],
    ...(report.code === undefined ? [] : [codeSection(report.code, named)]),
    [
      "calls that the stack shows, innermost first",
      report.calls.map((call) => callLine(call, named)),
    ],
    ...(report.stack === undefined ? [] : [stackSection(report.stack, named)]),
    ...report.walks.map(walkSection),
    ...report.chain.filter(({ gate }) => gate.present).map((link) => gateSection(link, named)),
    [
      "seen most often",
      report.hotSpots.slice(0, 8).map(({ rip, samples }) =>
        `RIP ${hex(rip)}  ${samples} ${samples === 1 ? "sample" : "samples"}${named(rip)}`
      ),
    ],
    [
      "last instructions, found by running it again",
      instructionLines(report),
    ],
    ["last exits", exitLines(report, named)],
    ["not to be had", [...report.missing]],
  ];
  return sections.filter(([, lines], k) => k === 0 || lines.length > 0)
    .map(([title, lines]) => [title, ...lines.map((line) => `  ${line}`.trimEnd())].join("\n"))
    .join("\n\n") + "\n";
}

function otherLines(others: readonly OtherVcpu[]): string[] {
  return aligned(others.map(({ vcpuId, state, rip, place = "", interrupts, instructions }) => [
    `vCPU ${vcpuId}`,
    state,
    `RIP ${hex(rip)}`,
    place,
    `interrupts ${interrupts ? "on" : "off"}`,
    `${instructions} instructions`,
  ]));
}

/** Rows as columns, without those that are empty. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, k) => Math.max(...rows.map((row) => row[k]!.length))) ?? [];
  return rows.map((row) =>
    row.flatMap((cell, k) => widths[k] === 0 ? [] : [cell.padEnd(widths[k]!)]).join("  ").trimEnd()
  );
}

const ORDER = ["RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP"];

function registerLines(registers: PostMortem["registers"]): string[] {
  const names = Object.keys(registers).filter((name) => name !== "RIP" && name !== "RFLAGS");
  const rest = names.filter((name) => !ORDER.includes(name));
  const shown = [...ORDER.filter((name) => names.includes(name)), ...rest];
  const cells = shown.map((name) => `${name.padEnd(3)} ${digits(registers[name] ?? 0n, 16)}`);
  const lines: string[] = [];
  for (let i = 0; i < cells.length; i += 4) lines.push(cells.slice(i, i + 4).join("  "));
  const { RIP, RFLAGS } = registers;
  if (RIP !== undefined && RFLAGS !== undefined) {
    lines.push(`RIP ${digits(RIP, 16)}  RFLAGS ${digits(RFLAGS, 8)}  ${flagNames(RFLAGS)}`);
  }
  return lines;
}

const SEGMENTS = ["cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt"] as const;

function systemLines(system: SystemState): string[] {
  const register = (name: string, value: bigint, names: string) =>
    `${name.padEnd(4)} ${digits(value, 16)}  ${names}`;
  const debug = [system.dr0, system.dr1, system.dr2, system.dr3].some((address) => address !== 0n)
    ? [
      `DR0–3 ${[system.dr0, system.dr1, system.dr2, system.dr3].map(hex).join(" ")}  ` +
      `DR6 ${hex(system.dr6)}  DR7 ${hex(system.dr7)}`,
    ]
    : [];
  const blocked = [
    ...(system.interruptShadow ? ["in the shadow of STI or MOV SS"] : []),
    ...(system.nmiMasked ? ["NMIs are blocked"] : []),
  ];
  return [
    ...SEGMENTS.map((name) => `${name.toUpperCase().padEnd(4)} ${describeSegment(system[name])}`),
    `GDTR base ${digits(system.gdt.base, 16)}  limit ${hex(system.gdt.limit)}`,
    `IDTR base ${digits(system.idt.base, 16)}  limit ${hex(system.idt.limit)}`,
    register("CR0", system.cr0, bitNames(system.cr0, CR0_BITS)),
    register("CR2", system.cr2, ""),
    register("CR3", system.cr3, ""),
    register("CR4", system.cr4, bitNames(system.cr4, CR4_BITS)),
    register("CR8", BigInt(system.cr8), ""),
    register("EFER", system.efer, bitNames(system.efer, EFER_BITS)),
    register("XCR0", system.xcr0, bitNames(system.xcr0, XCR0_BITS)),
    ...debug,
    ...blocked,
  ];
}

function codeSection(code: CodeBytes, named: Named): [string, string[]] {
  const { linear, before, from, length, instructions } = code;
  const text = (byte: number | null) => byte === null ? "??" : digits(byte, 2);
  const marked = from.map((byte, k) => {
    const open = k === 0 ? "<" : "";
    return `${open}${text(byte)}${k === Math.max(length, 1) - 1 ? ">" : ""}`;
  });
  const [first] = instructions;
  const place = named(linear).trim();
  const where = `${hex(linear)}${place === "" ? "" : ` (${place})`}`;
  const what = first === undefined ? "" : `: ${first.text}`;
  const itself = first !== undefined && first.target === linear ? ", to itself" : "";
  return [`code at ${where}${what}${itself}`, [
    before.map(text).join(" "),
    marked.join(" "),
    ...instructions.map((line) =>
      `${hex(line.linear)}  ${line.text}${line.target === undefined ? "" : named(line.target)}`
    ),
  ]];
}

function instructionLines({ vcpuId: own, lastInstructions }: PostMortem): string[] {
  const others = lastInstructions.some(({ vcpuId }) => vcpuId !== own);
  const rows = aligned(lastInstructions.map(({ vcpuId, rip, place = "", bytes, text, changes }) => [
    others ? `vCPU ${vcpuId}` : "",
    hex(rip),
    place,
    text ?? (bytes.length === 0 ? "nothing there" : bytes.map((byte) => digits(byte, 2)).join(" ")),
    Object.entries(changes).map(([name, value]) => `${name}=${hex(value)}`).join(" "),
  ]));
  return rows.flatMap((
    row,
    k,
  ) => [row, ...lastInstructions[k]!.events.map((event) => `  ${event}`)]);
}

function callLine({ slot, address, call, target }: ReturnAddress, named: Named): string {
  const what = target === undefined ? "an indirect call" : `the call of ${hex(target)}`;
  return `${hex(address)}${named(address)}  at ${hex(slot)}, from ${what}${
    target === undefined ? "" : named(target)
  } at ${hex(call)}`;
}

function stackSection(
  { linear, width, words }: StackWords,
  named: Named,
): [string, string[]] {
  return [
    `stack at ${hex(linear)}`,
    words.map((word, k) => {
      const at = digits(BigInt.asUintN(64, linear + BigInt(k * width)), width === 8 ? 16 : 8);
      return word === null
        ? `${at}  cannot be read`
        : `${at}  ${digits(word, 2 * width)}${named(word)}`;
    }),
  ];
}

function walkSection({ of, linear, walk, problem }: NamedWalk): [string, string[]] {
  const title = `page walk of ${of} ${hex(linear)}`;
  if (walk === undefined) {
    return [title, [problem ?? "paging is off: it is the physical address"]];
  }
  const lines = walk.steps.map(({ name, address, entry }) => {
    const value = entry === undefined
      ? "no memory here"
      : `${digits(entry, 16)}  ${entryFlags(name, entry)}`;
    return `${name.padEnd(5)} at ${hex(address).padEnd(10)} ${value}`;
  });
  if (problem !== undefined) lines.push(problem);
  if (walk.address !== undefined) {
    const rights = [
      walk.writable ? "writable" : "read-only",
      walk.user ? "user" : "supervisor",
      ...(walk.noExecute ? ["no-execute"] : []),
    ];
    lines.push(`gpa ${hex(walk.address)}, ${pageSize(walk.pageBytes)} page, ${rights.join(", ")}`);
  }
  return [title, lines];
}

function pageSize(bytes: number): string {
  if (bytes >= 2 ** 30) return `${bytes / 2 ** 30} GiB`;
  return bytes >= 2 ** 20 ? `${bytes / 2 ** 20} MiB` : `${bytes / 1024} KiB`;
}

function gateSection({ gate }: ChainLink, named: Named): [string, string[]] {
  const title = `gate ${gate.vector}, ${exceptionName(gate.vector)}, at ${hex(gate.address)}`;
  const handler = `handler ${hex(gate.selector)}:${hex(gate.offset)}${named(gate.offset)}`;
  const fields = [
    gate.type ?? "unknown",
    `DPL ${gate.dpl}`,
    ...(gate.ist === 0 ? [] : [`IST ${gate.ist}`]),
    handler,
  ];
  return [title, [fields.join(", "), ...(gate.problem === undefined ? [] : [gate.problem])]];
}

function exitLines({ lastExits }: PostMortem, named: Named): string[] {
  return aligned(lastExits.map((exit) => [
    `#${exit.number}`,
    `vCPU ${exit.vcpuId}`,
    `after ${exit.instructions}`,
    `RIP ${hex(exit.rip)}${named(exit.rip)}`,
    exit.reason,
    exit.detail,
  ]));
}
