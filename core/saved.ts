/**
 * The form in which state is saved.
 *
 * @module
 */

/**
 * Plain data that can be cloned, stored and sent elsewhere: no functions, no classes, no references
 * to live objects.
 */
export type Saved =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Saved[]
  | { readonly [key: string]: Saved };
