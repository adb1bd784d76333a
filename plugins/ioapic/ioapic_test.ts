/**
 * The registers of the I/O APIC, and what its pins send, from the data sheet's tables.
 */

import { assertEquals, assertThrows } from "@std/assert";
import { ArgumentError } from "../../core/mod.ts";
import type { ApicMessage } from "../lapic/mod.ts";
import { IoApic } from "./mod.ts";

/** A chip, and what it sent: type, vector, destination. */
function chip(version = 0x11, accepted: () => number = () => 1): {
  chip: IoApic;
  sent: string[];
  set: (pin: number, low: number, high?: number) => void;
} {
  const sent: string[] = [];
  const made = new IoApic(version, 24, (m: ApicMessage) => {
    const how = `${m.logical ? "logical" : "physical"} ${m.level ? "level" : "edge"}`;
    sent.push(`${m.type} ${m.vector} to ${m.destination} ${how}`);
    return accepted();
  });
  const set = (pin: number, low: number, high = 0): void => {
    made.write(0, 0x11 + 2 * pin);
    made.write(0x10, high);
    made.write(0, 0x10 + 2 * pin);
    made.write(0x10, low);
  };
  return { chip: made, sent, set };
}

function get(from: IoApic, index: number): number {
  from.write(0, index);
  return from.read(0x10);
}

Deno.test("registers after RESET", () => {
  const { chip: io } = chip();
  assertEquals([get(io, 0), get(io, 1), get(io, 2)], [0, 0x17_0011, 0]);
  for (let pin = 0; pin < 24; pin++) {
    assertEquals([get(io, 0x10 + 2 * pin), get(io, 0x11 + 2 * pin)], [0x1_0000, 0]);
  }
  // What is not there reads 0.
  assertEquals([get(io, 3), get(io, 0x0f), get(io, 0x40), get(io, 0xff)], [0, 0, 0, 0]);
  assertEquals([io.read(0x04), io.read(0x20), io.read(0x40)], [0, 0, 0]);
  assertEquals(io.read(0), 0xff);
});

Deno.test("bits that can be written", () => {
  const { chip: io, set } = chip();
  io.write(0, 0);
  io.write(0x10, 0xffff_ffff);
  assertEquals([get(io, 0), get(io, 2)], [0x0f00_0000, 0x0f00_0000]);
  io.write(0, 1);
  io.write(0x10, 0);
  assertEquals(get(io, 1), 0x17_0011);
  set(5, 0xffff_ffff, 0xffff_ffff);
  assertEquals([get(io, 0x1a), get(io, 0x1b)], [0x1_afff, 0xff00_0000]);
  set(5, 0, 0);
  assertEquals([get(io, 0x1a), get(io, 0x1b)], [0, 0]);
});

Deno.test("an edge sends once; at a masked pin it is lost", () => {
  const { chip: io, sent, set } = chip();
  set(4, 0x35, 0x0700_0000);
  io.setPin(4, true);
  io.setPin(4, true);
  assertEquals(sent.splice(0), ["0 53 to 7 physical edge"]);
  io.setPin(4, false);
  assertEquals(sent, []);
  set(4, 0x1_0035);
  io.setPin(4, true);
  set(4, 0x35);
  assertEquals(sent, []);
  io.setPin(4, false);
  io.setPin(4, true);
  assertEquals(sent, ["0 53 to 0 physical edge"]);
});

Deno.test("a level sends until it is ended, and again while it lasts", () => {
  const { chip: io, sent, set } = chip();
  set(4, 0x8035);
  const entry = (): number => get(io, 0x18);
  io.setPin(4, true);
  io.setPin(4, true);
  assertEquals([sent.splice(0).length, entry()], [1, 0xc035]);
  // Another vector's EOI is not its.
  io.end(0x36);
  assertEquals([sent.length, entry()], [0, 0xc035]);
  io.end(0x35);
  assertEquals([sent.splice(0).length, entry()], [1, 0xc035]);
  io.setPin(4, false);
  assertEquals(entry(), 0xc035);
  io.end(0x35);
  assertEquals([sent.length, entry()], [0, 0x8035]);
  // Masked, it waits; asserted when unmasked, it sends.
  set(4, 0x1_8035);
  io.setPin(4, true);
  assertEquals(sent.length, 0);
  set(4, 0x8035);
  assertEquals([sent.splice(0).length, entry()], [1, 0xc035]);
  // Masked while it is being handled: the end does not send again.
  set(4, 0x1_8035);
  io.end(0x35);
  assertEquals([sent.length, entry()], [0, 0x1_8035]);
});

Deno.test("remote IRR can only be cleared by an end, or by making the entry edge-triggered", () => {
  const { chip: io, set } = chip();
  set(4, 0x8035);
  io.setPin(4, true);
  set(4, 0x8035);
  assertEquals(get(io, 0x18), 0xc035);
  io.setPin(4, false);
  set(4, 0x1_0035);
  assertEquals(get(io, 0x18), 0x1_0035);
  set(4, 0x1_c035);
  assertEquals(get(io, 0x18), 0x1_8035);
});

Deno.test("a message that nobody accepts leaves no remote IRR", () => {
  let accepted = 0;
  const { chip: io, sent, set } = chip(0x11, () => accepted);
  set(4, 0x8035);
  io.setPin(4, true);
  assertEquals([sent.length, get(io, 0x18)], [1, 0x8035]);
  accepted = 1;
  io.setPin(4, true);
  assertEquals([sent.length, get(io, 0x18)], [2, 0xc035]);
});

Deno.test("message types and destination modes are handed on", () => {
  const rows: [number, number, string][] = [
    [0x0135, 0x0f00_0000, "1 53 to 15 physical edge"],
    [0x0935, 0x0300_0000, "1 53 to 3 logical edge"],
    [0x0400, 0xff00_0000, "4 0 to 255 physical edge"],
    [0x0500, 0, "5 0 to 0 physical edge"],
    [0x0700, 0, "7 0 to 0 physical edge"],
  ];
  for (const [low, high, expected] of rows) {
    const { chip: io, sent, set } = chip();
    set(9, low, high);
    io.setPin(9, true);
    assertEquals(sent, [expected]);
  }
  // A level-triggered NMI is not ended, and has no remote IRR.
  const { chip: io, set } = chip();
  set(9, 0x8400);
  io.setPin(9, true);
  assertEquals(get(io, 0x22), 0x8400);
});

Deno.test("vectors of level-triggered entries, masked ones too, by whom they are for", () => {
  const { chip: io, set } = chip();
  set(1, 0x8041, 0x0100_0000);
  set(2, 0x1_81ff, 0x0200_0000);
  // Edge-triggered, and a level-triggered NMI: nobody ends those.
  set(3, 0x0052, 0x0100_0000);
  set(4, 0x8453, 0x0100_0000);
  const vectors = (destination: number): number[] => {
    const bits = new Uint32Array(8);
    io.levelVectors(bits, (message) => message.destination === destination);
    return [...Array(256).keys()].filter((k) => (bits[k >> 5]! >>> (k & 31)) & 1);
  };
  assertEquals([vectors(1), vectors(2), vectors(3)], [[0x41], [0xff], []]);
});

Deno.test("the EOI register is there from version 20h on", () => {
  for (const [version, entry] of [[0x11, 0xc035], [0x20, 0x8035]] as const) {
    const { chip: io, set } = chip(version);
    set(4, 0x8035);
    io.setPin(4, true);
    io.setPin(4, false);
    io.write(0x40, 0x35);
    assertEquals([get(io, 1) & 0xff, get(io, 0x18)], [version, entry]);
  }
});

Deno.test("saved state", () => {
  const { chip: io, set } = chip();
  set(4, 0x8035, 0x0500_0000);
  io.setPin(4, true);
  io.write(0, 0x18);
  const { chip: copy, sent } = chip();
  copy.load(io.save());
  assertEquals(copy.save(), io.save());
  assertEquals(copy.read(0x10), 0xc035);
  copy.end(0x35);
  assertEquals(sent, ["0 53 to 5 physical level"]);
  const other = new IoApic(0x11, 16, () => 0);
  assertThrows(() => other.load(io.save()), ArgumentError, "24 pins, not 16");
});
