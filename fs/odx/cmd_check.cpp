// odx check: recounts everything in a store; and repairs it, if it is not mounted.
#include "base/print.hpp"
#include "check_report.hpp"
#include "command.hpp"
#include "online_check.hpp"

namespace odx::cli {

int run_check(const Arguments& args, Streams& io) {
  CommandLine line(
      "check [--data] [--repair [--drop-journal-tail]] [--json] STORE\n"
      "   odx check [--data] [--cancel] [--json] MOUNTPOINT",
      "Recounts everything that a store counts and names each difference; without --repair,\n"
      "nothing is changed. A store that is mounted is checked by its mount point, as it is\n"
      "at one moment, while it is used.\n\n"
      "A repair mends what follows from records that are whole. What has lost its name is\n"
      "put below lost+found. Nothing is made up, and nothing is freed that could be in\n"
      "use; what cannot be read stays as it is.\n\n"
      "Exit codes: 0 clean, 1 everything repaired, 4 problems (left), 8 not checked or the\n"
      "repair could not be completed, 16 wrong usage, 32 cancelled.");
  line.add()("data", "also read every block in use and compare it with its checksum");
  line.add()("repair", "mend what can be mended without a guess");
  line.add()("drop-journal-tail",
             "where the journal is damaged in the middle: go back to the state before the first "
             "change that cannot be read, and lose all later ones");
  line.add()("json", "print one JSON object");
  line.add()("cancel", "of a mount: end the check that runs, if there is one, and make this one");
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
  const std::optional<Fd> mount = open_if_mounted(request.store);
  if (mount && request.repair) {
    complain(io, request.store, "is mounted; a store is repaired while it is not");
    return kNotChecked;
  }
  if (mount) {
    request.examine = [&](const CheckOptions& options) {
      return check_mounted(mount->get(), options, line.given("cancel"));
    };
  }
  return check_and_report(request, io);
}

}  // namespace odx::cli
