import { assertEquals } from "@std/assert";
import { exitTable, ownExits, readRuns } from "./exits.ts";

const SAID = `[    2.7] something of the kernel's
@run 1\r
tour: hello\r
vmm: vcpu 0: exits=9 io_exits=4\r
@status 1\r
# event histogram\r
{ exit_reason:        123 } hitcount:          4\r
{ exit_reason:        124 } hitcount:          3\r
{ exit_reason:         16 } hitcount:          1\r
{ exit_reason:        999 } hitcount:          1\r
@end\r
@run 0\r
vmm: /dev/kvm: No such file or directory\r
vmm: vcpu 1: exit reason 8, 0\r
vmm: vcpu 1:\r
@status 125\r
@end\r
`;

Deno.test("readRuns takes a guest's console, its status and KVM's counts from what the shell printed", () => {
  const exits = new Map([[123, 4], [124, 3], [16, 1], [999, 1]]);
  const failures = ["vmm: /dev/kvm: No such file or directory", "vmm: vcpu 1: exit reason 8, 0"];
  assertEquals(readRuns(SAID, "svm"), [
    { on: true, console: ["tour: hello"], status: 1, exits },
    { on: false, console: failures, status: 125, exits: new Map() },
  ]);
  assertEquals(readRuns("nothing", "svm"), []);
});

Deno.test("readRuns counts VMX's reasons without the flags in bits 31:16", () => {
  const line = (reason: number): string => `{ exit_reason: ${reason} } hitcount: 2\n`;
  const text = `@run 1\n@status 1\n${line(10)}${line(0x400_000a)}@end`;
  assertEquals(readRuns(text, "vmx")[0]!.exits, new Map([[10, 4]]));
});

Deno.test("exitTable lays KVM's counts beside ours, what neither has left out", () => {
  const ours = ownExits({
    profile: {
      reasons: [
        { reason: "IO", count: 4 },
        { reason: "RDMSR", count: 1 },
        { reason: "WRMSR", count: 2 },
        { reason: "SHUTDOWN", count: 1 },
      ],
    },
  });
  assertEquals(exitTable(readRuns(SAID, "svm")[0]!, ours, "svm"), [
    "exits                      KVM     our svm",
    "port I/O                     4           4",
    "RDMSR, WRMSR                 3           3",
    "control registers            1           0",
    "others                       1           1",
    "all                          9           8",
  ]);
});
