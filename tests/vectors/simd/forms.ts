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
export type InputClass = "int" | "half" | "f32" | "f64" | "count" | "text";

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
 * Rows of: feature (behind a colon the features of the VEX forms of 128 and 256 bits), shape, inputs, prefixes and map, then opcode and mnemonic pairs.
 *
 * Shapes: `b` two sources, `u` one, `r` register form only, `m` memory form only, `n` general register
 * in ModRM.reg, `x` first operand register 1, digits the ModRM.reg extension; `i` an immediate; `f`
 * MXCSR counts; `p` a predicate; `t` a control of strings; `a` approximate; `W` with REX.W as well; `d` that VEX
 * adds a source.
 */
const LEGACY = `
sse:avx,avx u int 0f: 10 movups 28 movaps
sse:avx,avx bf f32 0f: 58 addps 5c subps 59 mulps 5e divps
sse2:avx,avx bf f64 66.0f: 58 addpd 5c subpd 59 mulpd 5e divpd
sse:avx, bf f32 f3.0f: 58 addss 5c subss 59 mulss 5e divss
sse2:avx, bf f64 f2.0f: 58 addsd 5c subsd 59 mulsd 5e divsd
sse:avx,avx uf f32 0f: 51 sqrtps
sse2:avx,avx uf f64 66.0f: 51 sqrtpd
sse:avx, ufd f32 f3.0f: 51 sqrtss
sse2:avx, ufd f64 f2.0f: 51 sqrtsd
sse:avx,avx bf f32 0f: 5d minps 5f maxps
sse2:avx,avx bf f64 66.0f: 5d minpd 5f maxpd
sse:avx, bf f32 f3.0f: 5d minss 5f maxss
sse2:avx, bf f64 f2.0f: 5d minsd 5f maxsd
sse:avx,avx bfp f32 0f: c2 cmpps
sse2:avx,avx bfp f64 66.0f: c2 cmppd
sse:avx, bfp f32 f3.0f: c2 cmpss
sse2:avx, bfp f64 f2.0f: c2 cmpsd
sse:avx, sf f32 0f: 2e ucomiss 2f comiss
sse2:avx, sf f64 66.0f: 2e ucomisd 2f comisd
sse:avx,avx uaf f32 0f: 52 rsqrtps 53 rcpps
sse:avx, uafd f32 f3.0f: 52 rsqrtss 53 rcpss
sse2:avx,avx uf f32 0f: 5a cvtps2pd
sse2:avx,avx uf f64 66.0f: 5a cvtpd2ps e6 cvttpd2dq
sse2:avx, ufd f64 f2.0f: 5a cvtsd2ss
sse2:avx,avx uf f64 f2.0f: e6 cvtpd2dq
sse2:avx, ufd f32 f3.0f: 5a cvtss2sd
sse2:avx,avx uf f32 f3.0f: 5b cvttps2dq
sse2:avx,avx uf f32 66.0f: 5b cvtps2dq
sse2:avx,avx uf int 0f: 5b cvtdq2ps
sse2:avx,avx uf int f3.0f: e6 cvtdq2pd
sse:avx, ufWd int f3.0f: 2a cvtsi2ss
sse2:avx, ufWd int f2.0f: 2a cvtsi2sd
sse:avx, nfW f32 f3.0f: 2c cvttss2si 2d cvtss2si
sse2:avx, nfW f64 f2.0f: 2c cvttsd2si 2d cvtsd2si
sse2:avx,avx u int 66.0f: 10 movupd 28 movapd 6f movdqa
sse2:avx,avx u int f3.0f: 6f movdqu
sse2:avx, u int f3.0f: 7e movq
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
sse:avx,avx b int 0f: 14 unpcklps 15 unpckhps 54 andps 55 andnps 56 orps 57 xorps
sse2:avx,avx b int 66.0f: 14 unpcklpd 15 unpckhpd 54 andpd 55 andnpd 56 orpd 57 xorpd
sse:avx,avx nr int 0f: 50 movmskps
sse2:avx,avx nr int 66.0f: 50 movmskpd
sse2:avx,avx2 nr int 66.0f: d7 pmovmskb
sse2:avx,avx2 b int 66.0f: 60 punpcklbw 61 punpcklwd 62 punpckldq 63 packsswb 64 pcmpgtb 65 pcmpgtw 66 pcmpgtd 67 packuswb 68 punpckhbw 69 punpckhwd 6a punpckhdq 6b packssdw 6c punpcklqdq 6d punpckhqdq 74 pcmpeqb 75 pcmpeqw 76 pcmpeqd
sse2:avx,avx2 b int 66.0f: d4 paddq d5 pmullw d8 psubusb d9 psubusw da pminub db pand dc paddusb dd paddusw de pmaxub df pandn e0 pavgb e3 pavgw e4 pmulhuw e5 pmulhw e8 psubsb e9 psubsw ea pminsw eb por ec paddsb ed paddsw ee pmaxsw ef pxor f4 pmuludq f5 pmaddwd f6 psadbw f8 psubb f9 psubw fa psubd fb psubq fc paddb fd paddw fe paddd
sse2:avx,avx2 b count 66.0f: d1 psrlw d2 psrld d3 psrlq e1 psraw e2 psrad f1 psllw f2 pslld f3 psllq
sse2:avx,avx2 r2id int 66.0f: 71 psrlw_i 72 psrld_i 73 psrlq_i
sse2:avx,avx2 r4id int 66.0f: 71 psraw_i 72 psrad_i
sse2:avx,avx2 r6id int 66.0f: 71 psllw_i 72 pslld_i 73 psllq_i
sse2:avx,avx2 r3id int 66.0f: 73 psrldq
sse2:avx,avx2 r7id int 66.0f: 73 pslldq
sse2:avx,avx2 ui int 66.0f: 70 pshufd
sse2:avx,avx2 ui int f3.0f: 70 pshufhw
sse2:avx,avx2 ui int f2.0f: 70 pshuflw
sse:avx,avx bi int 0f: c6 shufps
sse2:avx,avx bi int 66.0f: c6 shufpd
sse2:avx, bi int 66.0f: c4 pinsrw
sse2:avx, nri int 66.0f: c5 pextrw
pni:avx,avx bf f64 66.0f: 7c haddpd 7d hsubpd d0 addsubpd
pni:avx,avx bf f32 f2.0f: 7c haddps 7d hsubps d0 addsubps
pni:avx,avx u int f3.0f: 12 movsldup 16 movshdup
pni:avx,avx u int f2.0f: 12 movddup
pni:avx,avx um int f2.0f: f0 lddqu
ssse3:avx,avx2 b int 66.0f38: 00 pshufb 01 phaddw 02 phaddd 03 phaddsw 04 pmaddubsw 05 phsubw 06 phsubd 07 phsubsw 08 psignb 09 psignw 0a psignd 0b pmulhrsw
ssse3:avx,avx2 u int 66.0f38: 1c pabsb 1d pabsw 1e pabsd
ssse3:avx,avx2 bi int 66.0f3a: 0f palignr
sse4_1 bx int 66.0f38: 10 pblendvb 14 blendvps 15 blendvpd
sse4_1:avx,avx u int 66.0f38: 17 ptest
sse4_1:avx,avx2 u int 66.0f38: 20 pmovsxbw 21 pmovsxbd 22 pmovsxbq 23 pmovsxwd 24 pmovsxwq 25 pmovsxdq 30 pmovzxbw 31 pmovzxbd 32 pmovzxbq 33 pmovzxwd 34 pmovzxwq 35 pmovzxdq
sse4_1:avx,avx2 b int 66.0f38: 28 pmuldq 29 pcmpeqq 2b packusdw 38 pminsb 39 pminsd 3a pminuw 3b pminud 3c pmaxsb 3d pmaxsd 3e pmaxuw 3f pmaxud 40 pmulld
sse4_1:avx,avx2 um int 66.0f38: 2a movntdqa
sse4_1:avx, u int 66.0f38: 41 phminposuw
sse4_1:avx,avx ufi f32 66.0f3a: 08 roundps
sse4_1:avx, ufid f32 66.0f3a: 0a roundss
sse4_1:avx,avx ufi f64 66.0f3a: 09 roundpd
sse4_1:avx, ufid f64 66.0f3a: 0b roundsd
sse4_1:avx,avx bi int 66.0f3a: 0c blendps 0d blendpd
sse4_1:avx,avx2 bi int 66.0f3a: 0e pblendw 42 mpsadbw
sse4_1:avx, bi int 66.0f3a: 21 insertps 20 pinsrb
sse4_1:avx, biW int 66.0f3a: 22 pinsrd
sse4_1:avx, ui int 66.0f3a: 14 pextrb 15 pextrw_sse41 17 extractps
sse4_1:avx, uiW int 66.0f3a: 16 pextrd
sse4_1:avx,avx bfi f32 66.0f3a: 40 dpps
sse4_1:avx, bfi f64 66.0f3a: 41 dppd
sse4_2:avx,avx2 b int 66.0f38: 37 pcmpgtq
sse4_2:avx, utW text 66.0f3a: 60 pcmpestrm 61 pcmpestri
sse4_2:avx, ut text 66.0f3a: 62 pcmpistrm 63 pcmpistri
aes:avx, b int 66.0f38: dc aesenc dd aesenclast de aesdec df aesdeclast
aes:avx, u int 66.0f38: db aesimc
aes:avx, ui int 66.0f3a: df aeskeygenassist
pclmulqdq:avx, bi int 66.0f3a: 44 pclmulqdq
sha_ni b int 0f38: c8 sha1nexte c9 sha1msg1 ca sha1msg2 cc sha256msg1 cd sha256msg2
sha_ni bx int 0f38: cb sha256rnds2
sha_ni bi int 0f3a: cc sha1rnds4
`;

/** What there is with VEX alone, the same way; `l` with a register in the last byte, `g` a gather. */
const VEX = `
avx:avx, br int f3.0f: 10 movss
avx:avx, br int f2.0f: 10 movsd
avx:avx, um int f3.0f: 10 movss_load
avx:avx, um int f2.0f: 10 movsd_load
avx:avx, br int 0f: 12 movhlps 16 movlhps
avx:avx, bm int 0f: 12 movlps 16 movhps
avx:avx, bm int 66.0f: 12 movlpd 16 movhpd
avx:avx, um int 0f: 13 movlps_store 17 movhps_store
avx:avx,avx um int 0f: 11 movups_store 29 movaps_store 2b movntps
avx:avx,avx um int 66.0f: 7f movdqa_store e7 movntdq
avx:avx, um int 66.0f: d6 movq_store
avx:avx,avx ur int 66.0f: 7f movdqa_rm
avx:avx, uW int 66.0f: 7e movd_store
avx:avx, um int f3.0f: 11 movss_store
avx:avx, br int f2.0f: 11 movsd_rm
avx:avx,avx b int 66.0f38: 0c permilps 0d permilpd
avx:avx,avx u int 66.0f38: 0e testps 0f testpd
avx:avx,avx ui int 66.0f3a: 04 permilps_i 05 permilpd_i
avx:,avx bi int 66.0f3a: 06 perm2f128 18 insertf128
avx:,avx ui int 66.0f3a: 19 extractf128
avx:avx,avx um int 66.0f38: 18 broadcastss
avx:,avx um int 66.0f38: 19 broadcastsd 1a broadcastf128
avx:avx,avx bm int 66.0f38: 2c maskmovps 2d maskmovpd 2e maskmovps_store 2f maskmovpd_store
avx:avx,avx bl int 66.0f3a: 4a blendvps 4b blendvpd
avx:avx,avx2 bl int 66.0f3a: 4c pblendvb
avx2:avx2,avx2 u int 66.0f38: 58 pbroadcastd 59 pbroadcastq 78 pbroadcastb 79 pbroadcastw
avx2:avx2,avx2 ur int 66.0f38: 18 broadcastss_r
avx2:,avx2 ur int 66.0f38: 19 broadcastsd_r
avx2:,avx2 um int 66.0f38: 5a broadcasti128
avx2:,avx2 b int 66.0f38: 16 permps 36 permd
avx2:,avx2 ui int 66.0f3a.w1: 00 permq 01 permpd
avx2:avx2,avx2 bi int 66.0f3a: 02 pblendd
avx2:,avx2 bi int 66.0f3a: 46 perm2i128 38 inserti128
avx2:,avx2 ui int 66.0f3a: 39 extracti128
avx2:avx2,avx2 b count 66.0f38: 45 psrlvd 46 psravd 47 psllvd
avx2:avx2,avx2 b count 66.0f38.w1: 45 psrlvq 47 psllvq
avx2:avx2,avx2 bm int 66.0f38: 8c pmaskmovd 8e pmaskmovd_store
fma:fma,fma bf f32 66.0f38: 96 fmaddsub132ps 97 fmsubadd132ps 98 fmadd132ps 9a fmsub132ps 9c fnmadd132ps 9e fnmsub132ps
fma:fma,fma bf f64 66.0f38.w1: 96 fmaddsub132pd 97 fmsubadd132pd 98 fmadd132pd 9a fmsub132pd 9c fnmadd132pd 9e fnmsub132pd
fma:fma, bf f32 66.0f38: 99 fmadd132ss 9b fmsub132ss 9d fnmadd132ss 9f fnmsub132ss
fma:fma, bf f64 66.0f38.w1: 99 fmadd132sd 9b fmsub132sd 9d fnmadd132sd 9f fnmsub132sd
fma:fma,fma bf f32 66.0f38: a6 fmaddsub213ps a7 fmsubadd213ps a8 fmadd213ps aa fmsub213ps ac fnmadd213ps ae fnmsub213ps
fma:fma,fma bf f64 66.0f38.w1: a6 fmaddsub213pd a7 fmsubadd213pd a8 fmadd213pd aa fmsub213pd ac fnmadd213pd ae fnmsub213pd
fma:fma, bf f32 66.0f38: a9 fmadd213ss ab fmsub213ss ad fnmadd213ss af fnmsub213ss
fma:fma, bf f64 66.0f38.w1: a9 fmadd213sd ab fmsub213sd ad fnmadd213sd af fnmsub213sd
fma:fma,fma bf f32 66.0f38: b6 fmaddsub231ps b7 fmsubadd231ps b8 fmadd231ps ba fmsub231ps bc fnmadd231ps be fnmsub231ps
fma:fma,fma bf f64 66.0f38.w1: b6 fmaddsub231pd b7 fmsubadd231pd b8 fmadd231pd ba fmsub231pd bc fnmadd231pd be fnmsub231pd
fma:fma, bf f32 66.0f38: b9 fmadd231ss bb fmsub231ss bd fnmadd231ss bf fnmsub231ss
fma:fma, bf f64 66.0f38.w1: b9 fmadd231sd bb fmsub231sd bd fnmadd231sd bf fnmsub231sd
f16c:f16c,f16c uf half 66.0f38: 13 cvtph2ps
f16c:f16c,f16c ufi f32 66.0f3a: 1d cvtps2ph
avx2:avx2,avx2 bm int 66.0f38.w1: 8c pmaskmovq 8e pmaskmovq_store
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

interface Row {
  readonly features: readonly [string, string | undefined, string | undefined];
  readonly shape: string;
  readonly inputs: InputClass;
  /** pp of VEX. */
  readonly prefix: number;
  readonly map: string;
  /** W of VEX where it is not 0. */
  readonly wide: boolean;
  readonly opcode: number;
  readonly name: string;
}

const PREFIXES: readonly (string | undefined)[] = [undefined, "66", "f3", "f2"];

function* rows(table: string): Generator<Row> {
  for (const line of table.trim().split("\n")) {
    const [head, list] = line.split(": ");
    const [featureText, shape, inputs, encoding] = head!.split(" ");
    const [feature, vex] = featureText!.split(":");
    const [narrow, wide] = vex?.split(",") ?? [];
    const parts = encoding!.split(".");
    const prefix = PREFIXES.indexOf(parts.find((part) => PREFIXES.includes(part)));
    const words = list!.split(" ");
    for (let k = 0; k < words.length; k += 2) {
      yield {
        features: [feature!, narrow || undefined, wide || undefined],
        shape: shape!,
        inputs: inputs as InputClass,
        prefix: Math.max(prefix, 0),
        map: parts.find((part) => part in MAPS)!,
        wide: parts.includes("w1"),
        opcode: parseInt(words[k]!, 16),
        name: words[k + 1]!,
      };
    }
  }
}

function* formsOf(table: string, withLegacy: boolean): Generator<SimdForm> {
  for (const row of rows(table)) {
    const { shape, inputs, name } = row;
    const common = {
      inputs,
      rounds: shape.includes("f"),
      constants: constantsOf(shape),
      approximate: shape.includes("a"),
    };
    for (const [kind, modrm] of modrms(shape)) {
      for (const wide of shape.includes("W") ? [false, true] : [row.wide]) {
        const suffix = `${kind}${wide && shape.includes("W") ? " w" : ""}`;
        const prefix = PREFIXES[row.prefix];
        if (withLegacy) {
          yield {
            ...common,
            name: `${name} ${suffix}`,
            feature: row.features[0],
            code: [
              ...(prefix === undefined ? [] : [parseInt(prefix, 16)]),
              ...(wide ? [0x48] : []),
              ...MAPS[row.map]!,
              row.opcode,
              modrm,
            ],
          };
        }
        for (const length of [0, 1] as const) {
          const feature = row.features[length + 1];
          if (feature === undefined) continue;
          yield {
            ...common,
            name: `v${name} ${length === 0 ? "128" : "256"} ${suffix}`,
            feature,
            code: vexCode(row, wide, length, modrm),
          };
        }
      }
    }
  }
}

/** Number of a map in VEX. */
const MAP_NUMBERS: readonly string[] = ["", "0f", "0f38", "0f3a"];

function vexCode(
  { shape, map, prefix, opcode }: Row,
  wide: boolean,
  length: 0 | 1,
  modrm: number,
): number[] {
  const source = /[bd]/.test(shape) ? 1 : 0;
  const second = (wide ? 0x80 : 0) | ((~source & 15) << 3) | (length << 2) | prefix;
  const code = [0xc4, 0xe0 | MAP_NUMBERS.indexOf(map), second, opcode, modrm];
  // The register that the last byte names is 0: what stands there is the mask.
  return shape.includes("l") ? [...code, 0] : code;
}

/** All forms. */
export const SIMD_FORMS: readonly SimdForm[] = [
  ...formsOf(LEGACY, true),
  ...formsOf(VEX, false),
];
