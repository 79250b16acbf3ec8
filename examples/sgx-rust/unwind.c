/* What the standard library wants of libunwind. With panic = "abort" nothing unwinds: these end a
   backtrace before its first frame, and abort where a frame is asked about. */
#define STUB(name) __attribute__((noreturn)) void _Unwind_##name(void) { __builtin_trap(); }
int _Unwind_Backtrace(void) { return 5; /* _URC_END_OF_STACK */ }
STUB(GetIP) STUB(GetIPInfo) STUB(GetCFA) STUB(FindEnclosingFunction)
STUB(GetLanguageSpecificData) STUB(GetRegionStart) STUB(GetTextRelBase) STUB(GetDataRelBase)
STUB(SetGR) STUB(SetIP) STUB(GetGR) STUB(DeleteException) STUB(RaiseException) STUB(Resume)
