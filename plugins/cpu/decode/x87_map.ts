/**
 * The x87 escapes D8–DF (APM vol. 3, appendix A.4; SDM vol. 2D, appendix B.17), in the notation of the
 * opcode maps.
 *
 * D9 /3, DC /2, DC /3, DD /1, DE /2 and DF /0–3 with a register are not in the manuals, and on every
 * processor. All but D9 /3, which does not mind an empty register, do what another one does.
 *
 * @module
 */

/** Which instructions leave alone where the last one stood: those on control, status and environment. */
const SILENT: ReadonlySet<string> = new Set([
  ..."FLDCW FNSTCW FNSTSW FNCLEX FNINIT FNOPNOWAIT".split(" "),
  ..."FLDENV FNSTENV FNSAVE FRSTOR -".split(" "),
]);

/** Adds to every other instruction its opcode as the unit keeps it (`fop`), which is its last operand. */
function noted(cells: string): string {
  return cells.split("|").map((cell) =>
    cell.split(";").map((alternative) => {
      const words = alternative.trim().split(" ");
      const at = words.findIndex((word) =>
        word !== "mem" && word !== "reg" && !word.startsWith("@")
      );
      const name = words[at]!;
      if (name.startsWith("GRP") || SILENT.has(name)) return alternative;
      const operands = words[at + 1];
      return [...words.slice(0, at + 1), operands === undefined ? "fop" : `${operands},fop`].join(
        " ",
      );
    }).join(" ; ")
  ).join(" | ");
}

/** Opcode extensions by ModRM.reg. */
const GROUPS: Readonly<Record<string, string>> = {
  GRPD8:
    "mem FADD Md ; FADD ST,T | mem FMUL Md ; FMUL ST,T | mem FCOM Md ; FCOM T | mem FCOMP Md ; FCOMP T | mem FSUB Md ; FSUB ST,T | mem FSUBR Md ; FSUBR ST,T | mem FDIV Md ; FDIV ST,T | mem FDIVR Md ; FDIVR ST,T",
  GRPD9:
    "mem FLD Md ; FLD T | reg FXCH T ; - | mem FST Md ; reg GRPD9.2 | mem FSTP Md ; FSTPNCE T | mem FLDENV Mb ; reg GRPD9.4 | mem FLDCW Mw ; reg GRPD9.5 | mem FNSTENV Mb ; reg GRPD9.6 | mem FNSTCW Mw ; reg GRPD9.7",
  GRPDA:
    "mem FIADD Md ; FCMOVB ST,T | mem FIMUL Md ; FCMOVE ST,T | mem FICOM Md ; FCMOVBE ST,T | mem FICOMP Md ; FCMOVU ST,T | mem FISUB Md ; - | mem FISUBR Md ; reg GRPDA.5 | mem FIDIV Md ; - | mem FIDIVR Md ; -",
  GRPDB:
    "mem FILD Md ; FCMOVNB ST,T | @pni mem FISTTP Md ; reg FCMOVNE ST,T ; - | mem FIST Md ; FCMOVNBE ST,T | mem FISTP Md ; FCMOVNU ST,T | reg GRPDB.4 ; - | mem FLD Mt ; FUCOMI ST,T | reg FCOMI ST,T ; - | mem FSTP Mt ; -",
  GRPDC:
    "mem FADD Mq ; FADD T,ST | mem FMUL Mq ; FMUL T,ST | mem FCOM Mq ; FCOM T | mem FCOMP Mq ; FCOMP T | mem FSUB Mq ; FSUBR T,ST | mem FSUBR Mq ; FSUB T,ST | mem FDIV Mq ; FDIVR T,ST | mem FDIVR Mq ; FDIV T,ST",
  GRPDD:
    "mem FLD Mq ; FFREE T | @pni mem FISTTP Mq ; reg FXCH T ; - | mem FST Mq ; FST T | mem FSTP Mq ; FSTP T | mem FRSTOR Mb ; FUCOM T | reg FUCOMP T ; - | mem FNSAVE Mb ; - | mem FNSTSW Mw ; -",
  GRPDE:
    "mem FIADD Mw ; FADDP T,ST | mem FIMUL Mw ; FMULP T,ST | mem FICOM Mw ; FCOMP T | mem FICOMP Mw ; reg GRPDE.3 | mem FISUB Mw ; FSUBRP T,ST | mem FISUBR Mw ; FSUBP T,ST | mem FIDIV Mw ; FDIVRP T,ST | mem FIDIVR Mw ; FDIVP T,ST",
  GRPDF:
    "mem FILD Mw ; FFREEP T | @pni mem FISTTP Mw ; reg FXCH T ; - | mem FIST Mw ; FSTP T | mem FISTP Mw ; FSTP T | mem FBLD Mt ; reg GRPDF.4 | mem FILD Mq ; FUCOMIP ST,T | mem FBSTP Mt ; FCOMIP ST,T | mem FISTP Mq ; -",
};

/** Opcode extensions by ModRM.rm. */
const SUBGROUPS: Readonly<Record<string, string>> = {
  "GRPD9.2": "FNOP | - | - | - | - | - | - | -",
  "GRPD9.4": "FCHS | FABS | - | - | FTST | FXAM | - | -",
  "GRPD9.5": "FLD1 | FLDL2T | FLDL2E | FLDPI | FLDLG2 | FLDLN2 | FLDZ | -",
  "GRPD9.6": "F2XM1 | FYL2X | FPTAN | FPATAN | FXTRACT | FPREM1 | FDECSTP | FINCSTP",
  "GRPD9.7": "FPREM | FYL2XP1 | FSQRT | FSINCOS | FRNDINT | FSCALE | FSIN | FCOS",
  "GRPDA.5": "- | FUCOMPP | - | - | - | - | - | -",
  "GRPDB.4": "FNOPNOWAIT | FNOPNOWAIT | FNCLEX | FNINIT | FNOPNOWAIT | - | - | -",
  "GRPDE.3": "- | FCOMPP | - | - | - | - | - | -",
  "GRPDF.4": "FNSTSW AX | - | - | - | - | - | - | -",
};

function notedAll(groups: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(groups).map(([name, cells]) => [name, noted(cells)]));
}

/** The groups that the escapes are. */
export const X87_GROUPS: Readonly<Record<string, string>> = notedAll(GROUPS);
/** Their second level. */
export const X87_SUBGROUPS: Readonly<Record<string, string>> = notedAll(SUBGROUPS);
