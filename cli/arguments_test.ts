import { assertEquals, assertThrows } from "@std/assert";
import { describeOptions, type OptionSpec, parseArguments } from "./arguments.ts";
import { CliError } from "./errors.ts";

const SPECS: readonly OptionSpec[] = [
  { name: "memory", value: "SIZE", help: "how much" },
  { name: "module", value: "FILE", repeat: true, help: "a file\nor two" },
  { name: "quiet", help: "say nothing" },
];

Deno.test("values follow their option as the next word or after =", () => {
  const parsed = parseArguments(
    ["a", "--memory", "1G", "--module=x=y", "b", "--module", "--quiet", "--quiet"],
    SPECS,
  );
  assertEquals(parsed.operands, ["a", "b"]);
  assertEquals(parsed.value("memory"), "1G");
  assertEquals(parsed.values("module"), ["x=y", "--quiet"]);
  assertEquals([parsed.has("quiet"), parsed.has("memory"), parsed.has("other")], [
    true,
    true,
    false,
  ]);
  assertEquals(parseArguments([], SPECS).value("memory"), undefined);
  assertEquals(parseArguments(["--memory="], SPECS).value("memory"), "");
});

Deno.test("-- ends the options, - is a word", () => {
  const parsed = parseArguments(["-", "--", "--quiet", "--"], SPECS);
  assertEquals(parsed.operands, ["-", "--quiet", "--"]);
  assertEquals(parsed.has("quiet"), false);
});

Deno.test("what is wrong is said", () => {
  const cases: [args: string[], message: string][] = [
    [["--memroy", "1"], "there is no option --memroy; --memory was meant?"],
    [["--modu=1"], "there is no option --modu; --module was meant?"],
    [["-m"], "there is no option -m"],
    [["--entirely-different"], "there is no option --entirely-different"],
    [["--memory"], "--memory needs a value: --memory SIZE"],
    [["--quiet=1"], "--quiet takes no value"],
    [["--memory=1", "--memory=2"], "--memory is there twice"],
    [["--quiet", "--quiet"], "--quiet is there twice"],
  ];
  for (const [args, message] of cases) {
    const error = assertThrows(() => parseArguments(args, SPECS), CliError);
    assertEquals([error.message, error.status], [message, 64]);
  }
});

Deno.test("options in the help", () => {
  assertEquals(
    describeOptions(SPECS),
    `  --memory SIZE  how much
  --module FILE  a file
                 or two
  --quiet        say nothing`,
  );
});
