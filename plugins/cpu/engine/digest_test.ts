import { assertEquals } from "@std/assert";
import { Digest } from "./digest.ts";

/** The same by Web Crypto. */
async function expected(words: readonly number[]): Promise<string> {
  const message = new DataView(new ArrayBuffer(words.length * 4));
  for (const [k, word] of words.entries()) message.setUint32(4 * k, word);
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", message));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

Deno.test("digests are those of SHA-256, for messages of every number of words of a block and more", async () => {
  for (let count = 0; count < 70; count++) {
    const words = Array.from({ length: count }, (_, k) => Math.imul(k + count, 0x9e37_79b1) >>> 0);
    const digest = new Digest();
    for (const word of words) digest.word(word);
    assertEquals(digest.finish(), await expected(words), `${count} words`);
  }
});

Deno.test("the example of FIPS 180-4: abcd, bcde and so on", () => {
  // NIST's two-block message has 56 letters, fourteen words.
  const text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  const digest = new Digest();
  for (let k = 0; k < text.length; k += 4) {
    digest.word([0, 1, 2, 3].reduce((word, n) => (word << 8) | text.charCodeAt(k + n), 0));
  }
  assertEquals(
    digest.finish(),
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
  );
});
