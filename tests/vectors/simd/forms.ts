/**
 * The forms of vector instructions that are recorded: encodings over fixed operands.
 *
 * The first vector operand is register 0, a second source of VEX is register 1, and what ModRM.rm names
 * is register 2 or memory at RDI; where XMM0 is implicit the first operand is register 1. A general
 * register in ModRM.reg is EAX, in ModRM.rm ECX.
 *
 * @module
 */

/** What operands are filled with: see `inputs.ts`. */
export type InputClass = "int" | "f32" | "f64" | "count" | "text";

/** One form. */
export interface SimdForm {
  /** Mnemonic and operands, unique. */
  readonly name: string;
  /** Feature as Linux names it. */
  readonly feature: string;
  /** What its operands are filled with. */
  readonly inputs: InputClass;
  /** It looks at MXCSR. */
  readonly rounds: boolean;
  /** Bytes up to the immediate. */
  readonly code: readonly number[];
  /** Immediates to go through; empty if it has none. */
  readonly constants: readonly number[];
  /** The result is an approximation of the processor's own: recorded only for what the manuals define. */
  readonly approximate: boolean;
}

/**
 * Rows of: feature, shape, inputs, prefixes and map, then opcode and mnemonic pairs.
 *
 * Shapes: `b` two sources, `u` one, `r` register form only, `m` memory form only, `n` general register
 * in ModRM.reg, `x` first operand register 1, digits the ModRM.reg extension; `i` an immediate; `f`
 * MXCSR counts; `p` a predicate; `t` a control of strings; `a` approximate; `W` with REX.W as well.
 */
const LEGACY = `
sse u int 0f: 10 movups 28 movaps
sse bf f32 0f: 58 addps 5c subps 59 mulps 5e divps
sse2 bf f64 66.0f: 58 addpd 5c subpd 59 mulpd 5e divpd
sse bf f32 f3.0f: 58 addss 5c subss 59 mulss 5e divss
sse2 bf f64 f2.0f: 58 addsd 5c subsd 59 mulsd 5e divsd
sse uf f32 0f: 51 sqrtps
sse2 uf f64 66.0f: 51 sqrtpd
sse uf f32 f3.0f: 51 sqrtss
sse2 uf f64 f2.0f: 51 sqrtsd
sse bf f32 0f: 5d minps 5f maxps
sse2 bf f64 66.0f: 5d minpd 5f maxpd
sse bf f32 f3.0f: 5d minss 5f maxss
sse2 bf f64 f2.0f: 5d minsd 5f maxsd
sse bfp f32 0f: c2 cmpps
sse2 bfp f64 66.0f: c2 cmppd
sse bfp f32 f3.0f: c2 cmpss
sse2 bfp f64 f2.0f: c2 cmpsd
sse sf f32 0f: 2e ucomiss 2f comiss
sse2 sf f64 66.0f: 2e ucomisd 2f comisd
sse uaf f32 0f: 52 rsqrtps 53 rcpps
sse uaf f32 f3.0f: 52 rsqrtss 53 rcpss
sse2 uf f32 0f: 5a cvtps2pd
sse2 uf f64 66.0f: 5a cvtpd2ps e6 cvttpd2dq
sse2 uf f64 f2.0f: 5a cvtsd2ss e6 cvtpd2dq
sse2 uf f32 f3.0f: 5a cvtss2sd 5b cvttps2dq
sse2 uf f32 66.0f: 5b cvtps2dq
sse2 uf int 0f: 5b cvtdq2ps
sse2 uf int f3.0f: e6 cvtdq2pd
sse ufW int f3.0f: 2a cvtsi2ss
sse2 ufW int f2.0f: 2a cvtsi2sd
sse nfW f32 f3.0f: 2c cvttss2si 2d cvtss2si
sse2 nfW f64 f2.0f: 2c cvttsd2si 2d cvtsd2si
sse2 u int 66.0f: 10 movupd 28 movapd 6f movdqa
sse2 u int f3.0f: 6f movdqu 7e movq
sse u int f3.0f: 10 movss
sse2 u int f2.0f: 10 movsd
sse um int 0f: 12 movlps 16 movhps 11 movups_store 29 movaps_store 13 movlps_store 17 movhps_store 2b movntps
sse ur int 0f: 12 movhlps 16 movlhps 11 movups_rm 29 movaps_rm
sse2 um int 66.0f: 12 movlpd 16 movhpd 13 movlpd_store 17 movhpd_store 2b movntpd 7f movdqa_store e7 movntdq d6 movq_store
sse2 ur int 66.0f: d6 movq_rm 7f movdqa_rm
sse um int f3.0f: 11 movss_store
sse ur int f3.0f: 11 movss_rm
sse2 um int f2.0f: 11 movsd_store
sse2 ur int f2.0f: 11 movsd_rm
sse2 uW int 66.0f: 6e movd 7e movd_store
sse b int 0f: 14 unpcklps 15 unpckhps 54 andps 55 andnps 56 orps 57 xorps
sse2 b int 66.0f: 14 unpcklpd 15 unpckhpd 54 andpd 55 andnpd 56 orpd 57 xorpd
sse nr int 0f: 50 movmskps
sse2 nr int 66.0f: 50 movmskpd d7 pmovmskb
sse2 b int 66.0f: 60 punpcklbw 61 punpcklwd 62 punpckldq 63 packsswb 64 pcmpgtb 65 pcmpgtw 66 pcmpgtd 67 packuswb 68 punpckhbw 69 punpckhwd 6a punpckhdq 6b packssdw 6c punpcklqdq 6d punpckhqdq 74 pcmpeqb 75 pcmpeqw 76 pcmpeqd
sse2 b int 66.0f: d4 paddq d5 pmullw d8 psubusb d9 psubusw da pminub db pand dc paddusb dd paddusw de pmaxub df pandn e0 pavgb e3 pavgw e4 pmulhuw e5 pmulhw e8 psubsb e9 psubsw ea pminsw eb por ec paddsb ed paddsw ee pmaxsw ef pxor f4 pmuludq f5 pmaddwd f6 psadbw f8 psubb f9 psubw fa psubd fb psubq fc paddb fd paddw fe paddd
sse2 b count 66.0f: d1 psrlw d2 psrld d3 psrlq e1 psraw e2 psrad f1 psllw f2 pslld f3 psllq
sse2 r2i int 66.0f: 71 psrlw_i 72 psrld_i 73 psrlq_i
sse2 r4i int 66.0f: 71 psraw_i 72 psrad_i
sse2 r6i int 66.0f: 71 psllw_i 72 pslld_i 73 psllq_i
sse2 r3i int 66.0f: 73 psrldq
sse2 r7i int 66.0f: 73 pslldq
sse2 ui int 66.0f: 70 pshufd
sse2 ui int f3.0f: 70 pshufhw
sse2 ui int f2.0f: 70 pshuflw
sse bi int 0f: c6 shufps
sse2 bi int 66.0f: c6 shufpd c4 pinsrw
sse2 nri int 66.0f: c5 pextrw
pni bf f64 66.0f: 7c haddpd 7d hsubpd d0 addsubpd
pni bf f32 f2.0f: 7c haddps 7d hsubps d0 addsubps
pni u int f3.0f: 12 movsldup 16 movshdup
pni u int f2.0f: 12 movddup
pni um int f2.0f: f0 lddqu
ssse3 b int 66.0f38: 00 pshufb 01 phaddw 02 phaddd 03 phaddsw 04 pmaddubsw 05 phsubw 06 phsubd 07 phsubsw 08 psignb 09 psignw 0a psignd 0b pmulhrsw
ssse3 u int 66.0f38: 1c pabsb 1d pabsw 1e pabsd
ssse3 bi int 66.0f3a: 0f palignr
sse4_1 bx int 66.0f38: 10 pblendvb 14 blendvps 15 blendvpd
sse4_1 u int 66.0f38: 17 ptest 20 pmovsxbw 21 pmovsxbd 22 pmovsxbq 23 pmovsxwd 24 pmovsxwq 25 pmovsxdq 30 pmovzxbw 31 pmovzxbd 32 pmovzxbq 33 pmovzxwd 34 pmovzxwq 35 pmovzxdq
sse4_1 b int 66.0f38: 28 pmuldq 29 pcmpeqq 2b packusdw 38 pminsb 39 pminsd 3a pminuw 3b pminud 3c pmaxsb 3d pmaxsd 3e pmaxuw 3f pmaxud 40 pmulld
sse4_1 um int 66.0f38: 2a movntdqa
sse4_1 u int 66.0f38: 41 phminposuw
sse4_1 ufi f32 66.0f3a: 08 roundps 0a roundss
sse4_1 ufi f64 66.0f3a: 09 roundpd 0b roundsd
sse4_1 bi int 66.0f3a: 0c blendps 0d blendpd 0e pblendw 42 mpsadbw 21 insertps 20 pinsrb
sse4_1 biW int 66.0f3a: 22 pinsrd
sse4_1 ui int 66.0f3a: 14 pextrb 15 pextrw_sse41 17 extractps
sse4_1 uiW int 66.0f3a: 16 pextrd
sse4_1 bfi f32 66.0f3a: 40 dpps
sse4_1 bfi f64 66.0f3a: 41 dppd
sse4_2 b int 66.0f38: 37 pcmpgtq
sse4_2 btW text 66.0f3a: 60 pcmpestrm 61 pcmpestri
sse4_2 bt text 66.0f3a: 62 pcmpistrm 63 pcmpistri
aes b int 66.0f38: dc aesenc dd aesenclast de aesdec df aesdeclast
aes u int 66.0f38: db aesimc
aes ui int 66.0f3a: df aeskeygenassist
pclmulqdq bi int 66.0f3a: 44 pclmulqdq
sha_ni b int 0f38: c8 sha1nexte c9 sha1msg1 ca sha1msg2 cc sha256msg1 cd sha256msg2
sha_ni bx int 0f38: cb sha256rnds2
sha_ni bi int 0f3a: cc sha1rnds4
`;

const MAPS: Readonly<Record<string, readonly number[]>> = {
  "0f": [0x0f],
  "0f38": [0x0f, 0x38],
  "0f3a": [0x0f, 0x3a],
};

/** Immediates: all two-bit patterns of fields and some beyond what counts. */
const CONSTANTS: readonly number[] = [
  ...[0x00, 0x1b, 0xe4, 0x39, 0x93, 0x4e, 0xb1, 0x55, 0xaa, 0xff, 0x72, 0x8d, 0xc6, 0x2f],
  ...[0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0f, 0x10, 0x11, 0x1f, 0x20, 0x3f],
  ...[0x40, 0x41, 0x80],
];

/** Predicates of comparisons that SSE knows. */
const PREDICATES: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7];

/** Controls of string comparisons: every format, aggregation, polarity and output. */
const TEXT_CONTROLS: readonly number[] = Array.from({ length: 128 }, (_, k) => k);

function constantsOf(shape: string): readonly number[] {
  if (shape.includes("i")) return CONSTANTS;
  if (shape.includes("p")) return PREDICATES;
  return shape.includes("t") ? TEXT_CONTROLS : [];
}

/** ModRM of the register form and of the memory form. */
function modrms(shape: string): readonly (readonly ["reg" | "mem", number])[] {
  const digit = /\d/.exec(shape)?.[0];
  const reg = digit !== undefined ? Number(digit) : shape.includes("x") ? 1 : 0;
  const register: readonly ["reg", number] = ["reg", 0xc2 | (reg << 3)];
  const memory: readonly ["mem", number] = ["mem", 0x07 | (reg << 3)];
  if (shape.includes("r")) return [register];
  return shape.includes("m") ? [memory] : [register, memory];
}

function* legacy(): Generator<SimdForm> {
  for (const line of LEGACY.trim().split("\n")) {
    const [head, list] = line.split(": ");
    const [feature, shape, inputs, encoding] = head!.split(" ");
    const [prefix, map] = encoding!.includes(".") ? encoding!.split(".") : [undefined, encoding];
    const words = list!.split(" ");
    for (let k = 0; k < words.length; k += 2) {
      for (const [kind, modrm] of modrms(shape!)) {
        for (const wide of shape!.includes("W") ? [false, true] : [false]) {
          yield {
            name: `${words[k + 1]} ${kind}${wide ? " w" : ""}`,
            feature: feature!,
            inputs: inputs as InputClass,
            rounds: shape!.includes("f"),
            code: [
              ...(prefix === undefined ? [] : [parseInt(prefix, 16)]),
              ...(wide ? [0x48] : []),
              ...MAPS[map!]!,
              parseInt(words[k]!, 16),
              modrm,
            ],
            constants: constantsOf(shape!),
            approximate: shape!.includes("a"),
          };
        }
      }
    }
  }
}

/** All forms. */
export const SIMD_FORMS: readonly SimdForm[] = [...legacy()];
