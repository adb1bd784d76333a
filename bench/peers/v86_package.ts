/**
 * Where v86 comes from.
 *
 * @module
 */

/** A string, not a literal in an import, so that nobody needs v86 who does not measure it. */
export const V86_PACKAGE: string = "npm:v86@0.5.462";
