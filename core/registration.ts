/**
 * What a plugin gets back for what it registers, and what the framework keeps of it.
 *
 * @module
 */

/** Something a plugin registered and may take back before it leaves. */
export interface Registration {
  /** Takes the registration back. Doing so twice is harmless. */
  remove(): void;
}

/**
 * A registration as its registry sees it: it can be taken out and put back exactly where it was,
 * which is what a hot swap that fails needs.
 */
export interface Binding {
  /** Puts the registration in force. May throw, and then nothing is registered. */
  attach(): void;
  /** Takes it out. Never throws. */
  detach(): void;
}
