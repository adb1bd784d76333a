// @ts-self-types="./mod.d.ts"
export * from "npm:deno-std@1.3.1/assert/mod.js";
