// odx check: recounts everything in a store that is not mounted, and repairs it.
#include "base/print.hpp"
#include "check_report.hpp"
#include "command.hpp"

namespace odx::cli {

int run_check(const Arguments& args, Streams& io) {
  CommandLine line(
      "check [--data] [--repair [--drop-journal-tail]] [--json] STORE",
      "Recounts everything that a store counts and names each difference. The store\n"
      "must not be mounted; without --repair, nothing is changed.\n\n"
      "A repair mends what follows from records that are whole. What has lost its name is\n"
      "put below lost+found. Nothing is made up, and nothing is freed that could be in\n"
      "use; what cannot be read stays as it is.\n\n"
      "Exit codes: 0 clean, 1 everything repaired, 4 problems (left), 8 not checked or the\n"
      "repair could not be completed, 16 wrong usage.");
  line.add()("data", "also read every block in use and compare it with its checksum");
  line.add()("repair", "mend what can be mended without a guess");
  line.add()("drop-journal-tail",
             "where the journal is damaged in the middle: go back to the state before the first "
             "change that cannot be read, and lose all later ones");
  line.add()("json", "print one JSON object");
  line.operands(1, 1);
  if (const auto code = line.parse(args, io)) {
    return *code == kUsage ? kCheckUsage : *code;
  }
  CheckRequest request;
  request.program = "odx";
  request.store = line.operands()[0];
  request.data = line.given("data");
  request.repair = line.given("repair");
  request.drop_journal_tail = line.given("drop-journal-tail");
  request.json = line.given("json");
  if (request.drop_journal_tail && !request.repair) {
    print(io.err, "odx: --drop-journal-tail needs --repair (see odx check --help)\n");
    return kCheckUsage;
  }
  return check_and_report(request, io);
}

}  // namespace odx::cli
