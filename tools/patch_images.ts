/**
 * Writes `patches/images.ts`: the guests that patch modules run, as text, because a module that was
 * fetched from a registry has no files beside it to read.
 *
 * @module
 */

/** The guests of `examples/guests` that patches use, sorted. */
export const PATCH_GUESTS: readonly string[] = [
  "apic",
  "apichost",
  "egprs",
  "ipistorm",
  "locks",
  "steps",
  "svm",
];

const FILE = new URL("../patches/images.ts", import.meta.url);

function imagePath(name: string): URL {
  return new URL(`../examples/guests/${name}/${name}.elf`, import.meta.url);
}

/** What `patches/images.ts` is to hold for the images as they are. */
export async function patchImagesModule(): Promise<string> {
  const rows: string[] = [];
  for (const name of PATCH_GUESTS) {
    const bytes = await Deno.readFile(imagePath(name));
    const text = btoa(String.fromCharCode(...bytes));
    rows.push(`  ${name}:\n    "${text}",`);
  }
  return `/**
 * Guests for the lab, from \`examples/guests\`. Written by \`deno task guests\`.
 *
 * @module
 */

/** The guests by name. */
export type GuestName =
${PATCH_GUESTS.map((name) => `  | "${name}"`).join("\n")};

/** Multiboot images in base 64. */
const IMAGES: Readonly<Record<GuestName, string>> = {
${rows.join("\n")}
};

/** The image of a guest. */
export function guestImage(name: GuestName): Uint8Array {
  return Uint8Array.from(atob(IMAGES[name]), (character) => character.charCodeAt(0));
}
`;
}

/** Writes `patches/images.ts`. */
export async function writePatchImages(): Promise<void> {
  await Deno.writeTextFile(FILE, await patchImagesModule());
}

/** Whether `patches/images.ts` holds the images as they are. */
export async function patchImagesCurrent(): Promise<boolean> {
  return await Deno.readTextFile(FILE) === await patchImagesModule();
}
