/**
 * Images that were not made in this repository: a C file of a few lines, compiled by whatever gcc is
 * there, run from the path that gcc wrote them to.
 */

import { assertEquals } from "@std/assert";
import { type CliIo, denoIo, main } from "../cli/mod.ts";

const SOURCE = `
static char stack[4096] __attribute__((used));
#ifdef __x86_64__
__asm__(".globl _start\\n_start: lea stack+4096(%rip), %rsp\\n call run\\n out %al, $0xf4");
#else
__asm__(".globl _start\\n_start: mov $stack+4096, %esp\\n call run\\n out %al, $0xf4");
#endif

static void put(char c) {
  __asm__ volatile("outb %0, %1" : : "a"(c), "d"((unsigned short)0x3f8));
}

int run(void) {
  unsigned a = 0, b = 1;
  for (int i = 0; i < 30; i++) {
    unsigned next = a + b;
    a = b;
    b = next;
  }
  char digits[12], *end = digits;
  for (unsigned rest = a; rest != 0; rest /= 10) *end++ = '0' + rest % 10;
  for (const char *text = "fib(30) = "; *text; text++) put(*text);
  while (end != digits) put(*--end);
  put('\\n');
  return a == 832040 ? 0 : 1;
}
`;

async function works(command: string, ...args: string[]): Promise<boolean> {
  try {
    const { success } = await new Deno.Command(command, { args, stdout: "null", stderr: "null" })
      .output();
    return success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function compile(folder: string, ...options: string[]): Promise<string> {
  const source = `${folder}/fib.c`;
  const image = `${folder}/fib${options.join("")}.elf`;
  await Deno.writeTextFile(source, SOURCE);
  const { success, stderr } = await new Deno.Command("gcc", {
    args: [
      ...options,
      ...["-O2", "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic"],
      ...["-mgeneral-regs-only", "-Wl,-Ttext-segment=0x200000", "-o", image, source],
    ],
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return image;
}

const gcc = await works("gcc", "--version");

for (const width of ["-m64", "-m32"]) {
  Deno.test({
    name: `an ELF executable that gcc ${width} made of a few lines of C runs from its path`,
    ignore: !gcc,
    async fn() {
      const folder = await Deno.makeTempDir();
      try {
        const image = await compile(folder, width);
        for (const vendor of ["svm", "metal"]) {
          let out = "";
          const io: CliIo = {
            ...denoIo(),
            stdin: undefined,
            stdout: (bytes) => void (out += new TextDecoder().decode(bytes)),
            stderr: () => {},
          };
          const status = await main(["run", image, "--vendor", vendor], io);
          assertEquals([status, out], [1, "fib(30) = 832040\n"]);
        }
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}
