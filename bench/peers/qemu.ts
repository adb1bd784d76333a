/**
 * QEMU's translator, TCG, as a whole machine.
 *
 * @module
 */
import { timed } from "./clock.ts";
import { commandLineOf, type FindPeer, imageOf, outputOf, PeerError } from "./peer.ts";

const PROGRAM = "qemu-system-x86_64";

/** QEMU, if it is on the PATH. */
export const findQemu: FindPeer = async () => {
  const name = "QEMU TCG";
  const version = (await outputOf(PROGRAM, "--version"))?.split("\n", 1)[0];
  if (version === undefined) return { name, missing: `${PROGRAM} is not on the PATH` };
  return {
    name,
    version,
    warms: false,
    can: () => true,
    async run(workload, rounds) {
      const { ms, code, stdout, stderr } = await timed(PROGRAM, [
        ...["-accel", "tcg", "-m", "64", "-kernel", imageOf(workload.guest).pathname],
        ...["-append", commandLineOf(workload, rounds), "-serial", "stdio", "-display", "none"],
        ...["-monitor", "none", "-nodefaults", "-no-reboot"],
        ...["-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"],
      ]);
      if (code !== 1) throw new PeerError(`QEMU: status ${code}: ${stderr}`);
      return { ms, console: stdout };
    },
  };
};
