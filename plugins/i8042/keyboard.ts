/**
 * The keyboard at the other end of the cable: it answers commands, and nobody presses a key.
 *
 * @module
 */

/** What a keyboard sends. */
const Answer = {
  ACKNOWLEDGE: 0xfa,
  RESEND: 0xfe,
  SELF_TEST_PASSED: 0xaa,
  ECHO: 0xee,
} as const;

/** An MF II keyboard's identity. */
const IDENTITY: readonly number[] = [0xab, 0x83];

/** Commands (IBM PS/2 Hardware Interface Technical Reference, "Keyboards"). */
const Command = {
  SET_LEDS: 0xed,
  ECHO: 0xee,
  SCAN_CODE_SET: 0xf0,
  IDENTIFY: 0xf2,
  SET_RATE: 0xf3,
  ENABLE: 0xf4,
  DISABLE: 0xf5,
  DEFAULTS: 0xf6,
  /** From here to FDh: how keys repeat. */
  FIRST_KEY_TYPE: 0xf7,
  LAST_KEY_TYPE: 0xfd,
  RESEND: 0xfe,
  RESET: 0xff,
} as const;

/** Answers a byte sent to the keyboard. */
export class Keyboard {
  /** The command that waits for its parameter; 0 if none does. */
  pending = 0;
  /** Scan code set, 1 to 3. */
  scanCodeSet = 2;
  /** What it sent last, for a resend. */
  last: number = Answer.ACKNOWLEDGE;

  /** Takes a byte and returns what the keyboard sends. */
  take(byte: number): readonly number[] {
    const answer = this.#answer(byte);
    this.last = answer.at(-1) ?? this.last;
    return answer;
  }

  #answer(byte: number): readonly number[] {
    const { pending } = this;
    if (pending !== 0 && byte < Command.SET_LEDS) {
      this.pending = 0;
      return this.#parameter(pending, byte);
    }
    this.pending = 0;
    switch (byte) {
      case Command.ECHO:
        return [Answer.ECHO];
      case Command.IDENTIFY:
        return [Answer.ACKNOWLEDGE, ...IDENTITY];
      case Command.SET_LEDS:
      case Command.SCAN_CODE_SET:
      case Command.SET_RATE:
        this.pending = byte;
        return [Answer.ACKNOWLEDGE];
      case Command.RESEND:
        return [this.last];
      case Command.RESET:
        this.scanCodeSet = 2;
        return [Answer.ACKNOWLEDGE, Answer.SELF_TEST_PASSED];
      case Command.DEFAULTS:
        this.scanCodeSet = 2;
        return [Answer.ACKNOWLEDGE];
      case Command.ENABLE:
      case Command.DISABLE:
        return [Answer.ACKNOWLEDGE];
    }
    const known = byte >= Command.FIRST_KEY_TYPE && byte <= Command.LAST_KEY_TYPE;
    return [known ? Answer.ACKNOWLEDGE : Answer.RESEND];
  }

  #parameter(command: number, value: number): readonly number[] {
    if (command !== Command.SCAN_CODE_SET) return [Answer.ACKNOWLEDGE];
    if (value === 0) return [Answer.ACKNOWLEDGE, this.scanCodeSet];
    if (value > 3) return [Answer.RESEND];
    this.scanCodeSet = value;
    return [Answer.ACKNOWLEDGE];
  }
}

/**
 * What the controller's translation to scan code set 1 makes of the bytes that this keyboard sends;
 * the others pass. Among them are the second byte of its identity and the numbers of the sets.
 */
const TRANSLATED: ReadonlyMap<number, number> = new Map([
  [0x83, 0x41],
  [0x01, 0x43],
  [0x02, 0x41],
  [0x03, 0x3f],
]);

/** A byte from the keyboard, translated as the controller does it. */
export function translate(byte: number): number {
  return TRANSLATED.get(byte) ?? byte;
}
