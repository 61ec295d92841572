/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migctl: options and verbs. */

#include <getopt.h>
#include <locale.h>
#include <signal.h>

#include "client.h"
#include "common/clock.h"

static const Verb verbs[] = {
        {"list", "", 0, 0, cmd_list, "VMs that are registered here"},
        {"status", "VM", 1, 1, cmd_status, "one VM, its devices and its job"},
        {"devices", "VM", 1, 1, cmd_devices, "the devices of a VM, and what they can do"},
        {"register", "FILE", 1, 1, cmd_register,
         "register the VM that FILE defines; --incoming: it is to come here"},
        {"unregister", "VM", 1, 1, cmd_unregister, "forget the VM; it goes on as it is"},
        {"check", "VM DEST", 2, 2, cmd_check, "whether the VM could go there, and what speaks against it"},
        {"migrate", "VM DEST", 2, 2, cmd_migrate, "move the VM with all its devices"},
        {"jobs", "", 0, 0, cmd_jobs, "moves that go on, and those that have ended"},
        {"cancel", "JOB", 1, 1, cmd_cancel, "turn a migration back"},
        {"resolve", "JOB", 1, 1, cmd_resolve, "what can be decided of a job in doubt, or the decision"},
        {"show", "JOB", 1, 1, cmd_show, "everything about a job, with a timeline of its blackout"},
        {"history", "", 0, 0, cmd_history, "moves that have ended, as far as they are kept"},
        {"reset", "VM [DEVICE]", 1, 2, cmd_reset, "reset one device, or each; it loses what it holds"},
        {"plugin list", "", 0, 0, cmd_plugin_list, "plugins that are loaded, and why one is not"},
        {"policy list", "", 0, 0, cmd_policy_list, "the policy files that are in force"},
        {"policy show", "NAME", 1, 1, cmd_policy_show, "the text of one of them"},
        {"policy check", "FILE", 1, 1, cmd_policy_check,
         "whether FILE could be one, and what is wrong with it"},
        {"policy explain", "VM [DEVICE]", 1, 2, cmd_policy_explain,
         "what holds for the VM or a device of it, and which file says so"},
        {"policy reload", "", 0, 0, cmd_policy_reload,
         "read the files again; if one is wrong nothing changes"},
        {"monitor", "", 0, 0, cmd_monitor, "what happens, line by line, until interrupted"},
};

enum {
        OPTION_BUS = 256,
        OPTION_JSON,
        OPTION_NO_LEGEND,
        OPTION_INCOMING,
        OPTION_TIMEOUT,
        OPTION_BANDWIDTH,
        OPTION_MAX_BLACKOUT,
        OPTION_REQUEST,
        OPTION_WAIT,
        OPTION_NO_WAIT,
        OPTION_DRY_RUN,
        OPTION_YES,
        OPTION_RUN_HERE,
        OPTION_DISCARD_HERE,
        OPTION_VM,
        OPTION_SINCE,
        OPTION_RESULT,
        OPTION_VERSION
};

static const struct option options[] = {{"bus-address", required_argument, NULL, OPTION_BUS},
                                        {"json", optional_argument, NULL, OPTION_JSON},
                                        {"no-legend", no_argument, NULL, OPTION_NO_LEGEND},
                                        {"incoming", no_argument, NULL, OPTION_INCOMING},
                                        {"timeout", required_argument, NULL, OPTION_TIMEOUT},
                                        {"bandwidth", required_argument, NULL, OPTION_BANDWIDTH},
                                        {"max-blackout", required_argument, NULL, OPTION_MAX_BLACKOUT},
                                        {"request-id", required_argument, NULL, OPTION_REQUEST},
                                        {"wait", no_argument, NULL, OPTION_WAIT},
                                        {"no-wait", no_argument, NULL, OPTION_NO_WAIT},
                                        {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
                                        {"yes", no_argument, NULL, OPTION_YES},
                                        {"run-here", no_argument, NULL, OPTION_RUN_HERE},
                                        {"discard-here", no_argument, NULL, OPTION_DISCARD_HERE},
                                        {"vm", required_argument, NULL, OPTION_VM},
                                        {"since", required_argument, NULL, OPTION_SINCE},
                                        {"result", required_argument, NULL, OPTION_RESULT},
                                        {"help", no_argument, NULL, 'h'},
                                        {"version", no_argument, NULL, OPTION_VERSION},
                                        {}};

static void help(FILE *f)
{
        fprintf(f,
                "migctl [OPTIONS] VERB ...\n\nMoves virtual machines and the devices they own.\n"
                "DEST: unix:/path of the other migmgrd's peer.sock; for tests tcp://127.0.0.1:PORT. No verb: list.\n\n");
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
                fprintf(f, "  %s %-*s  %s\n", verbs[i].name, 25 - (int) strlen(verbs[i].name),
                        verbs[i].arguments, verbs[i].doc);
        fprintf(f,
                "\n  --bus-address=ADDR      D-Bus to call, instead of the system bus\n"
                "  --json[=short|pretty]   for programs: one JSON value; monitor: one a line\n"
                "  --no-legend             tables without headings\n"
                "  --incoming              register: the VM is to come here\n"
                "  --timeout=SECONDS       migrate: turn back when the whole job takes longer\n"
                "  --bandwidth=RATE        migrate, check: bytes per second at most; K, M, G: KiB, MiB, GiB\n"
                "  --max-blackout=MS       migrate, check: turn back when the VM stands still for longer\n"
                "  --request-id=ID         migrate: the same ID again names the same job\n"
                "  --wait                  migrate: end when the job ends; it is so without\n"
                "  --no-wait               migrate: print the job's UUID and end\n"
                "  --dry-run               migrate: show what would be done, and what speaks against it\n"
                "  --yes                   reset: do not ask whether it is meant\n"
                "  --run-here              resolve: the VM is to run here, for the other side never will\n"
                "  --discard-here          resolve: what is here of the VM may go, for the other side has it\n"
                "  --vm=VM                 history: of this VM, by name or UUID\n"
                "  --since=TIME            history: ended since; 2026-11-21, \"2026-11-21 14:30\", or 2h, 3d ago\n"
                "  --result=RESULT         history: that ended so\n"
                "  --help                  this text\n"
                "  --version               version\n\n"
                "Exit status of migrate:\n ");
        for (size_t i = 0; outcome_result(i); i++)
                fprintf(f, "%s %d %s", i ? "," : "", outcome_result(i)->exit, outcome_result(i)->name);
        fprintf(f,
                ",\n  %d interrupted: the job goes on\nof every verb: %d usage, %d denied, %d not found, %d migmgrd unreachable\n",
                EXIT_INTERRUPTED, EXIT_USAGE, EXIT_DENIED, EXIT_NOT_FOUND, EXIT_UNREACHABLE);
}

static bool read_json_option(Options *o, const char *how)
{
        o->json = true;
        o->json_pretty = !how || streq(how, "pretty");
        return !how || streq(how, "pretty") || streq(how, "short");
}

/* A positive decimal number below `most`, and what follows it. 0: it is none. Not all that strtod() takes: no hexadecimal
 * digits, no blanks, no infinity. */
static double read_number(const char *text, double most, const char **ret_rest)
{
        char *end = NULL;
        size_t n = strspn(text, "0123456789.");
        double value = n > 0 ? strtod(text, &end) : 0;

        *ret_rest = text + n;
        return end == text + n && value > 0 && value < most ? value : 0;
}

/* In units of `unit` microseconds. */
static bool read_time(const char *text, uint64_t unit, uint64_t *ret_usec)
{
        const char *rest;
        uint64_t usec = (uint64_t) (read_number(text, 1e12 / (double) unit, &rest) * (double) unit);

        if (usec == 0 || *rest)
                return false;
        *ret_usec = usec;
        return true;
}

static bool read_rate(const char *text, uint64_t *ret_bytes)
{
        static const char units[] = "KMG";
        const char *rest, *unit;
        double rate = read_number(text, 1e15, &rest);

        unit = *rest ? strchr(units, *rest) : NULL;
        if (unit) {
                for (ptrdiff_t i = 0; i <= unit - units; i++)
                        rate *= 1024;
                rest++;
        }
        if (*rest || rate < 1 || rate > 1e18)
                return false;
        *ret_bytes = (uint64_t) rate;
        return true;
}

static int wrong_value(const char *option, const char *text, const char *what)
{
        fprintf(stderr, "migctl: --%s=%s: %s\n", option, text, what);
        return EXIT_USAGE;
}

static bool is_result(const char *text)
{
        for (size_t i = 0; outcome_result(i); i++)
                if (streq(outcome_result(i)->name, text))
                        return true;
        return false;
}

/* Returns -1 to go on, else the exit status. */
static int read_options(Options *o, int argc, char **argv)
{
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case OPTION_BUS: o->bus_address = optarg; break;
                case OPTION_JSON:
                        if (!read_json_option(o, optarg))
                                return wrong_value("json", optarg, "short or pretty");
                        break;
                case OPTION_NO_LEGEND: o->legend = false; break;
                case OPTION_INCOMING: o->incoming = true; break;
                case OPTION_TIMEOUT:
                        if (!read_time(optarg, USEC_PER_SEC, &o->timeout_usec))
                                return wrong_value("timeout", optarg, "a number of seconds");
                        break;
                case OPTION_BANDWIDTH:
                        if (!read_rate(optarg, &o->bandwidth))
                                return wrong_value(
                                        "bandwidth", optarg,
                                        "a number of bytes per second, or of KiB with K, MiB with M, GiB "
                                        "with G behind it");
                        break;
                case OPTION_MAX_BLACKOUT:
                        if (!read_time(optarg, USEC_PER_MSEC, &o->max_blackout_usec))
                                return wrong_value("max-blackout", optarg, "a number of milliseconds");
                        break;
                case OPTION_REQUEST: o->request_id = optarg; break;
                case OPTION_WAIT: o->wait = true; break;
                case OPTION_NO_WAIT: o->no_wait = true; break;
                case OPTION_DRY_RUN: o->dry_run = true; break;
                case OPTION_YES: o->yes = true; break;
                case OPTION_RUN_HERE: o->run_here = true; break;
                case OPTION_DISCARD_HERE: o->discard_here = true; break;
                case OPTION_VM: o->vm = optarg; break;
                case OPTION_SINCE:
                        if (!read_since(optarg, clock_realtime_usec(), &o->since_usec))
                                return wrong_value(
                                        "since", optarg,
                                        "a date as 2026-11-21, a time as \"2026-11-21 14:30\", or how "
                                        "long ago: a number with s, m, h, d or w behind it");
                        break;
                case OPTION_RESULT:
                        if (!is_result(optarg))
                                return wrong_value("result", optarg,
                                                   "not what a job ends with; see migctl --help");
                        o->result = optarg;
                        break;
                case 'h': help(stdout); return EXIT_DONE;
                case OPTION_VERSION: printf("migctl %s\n", PACKAGE_VERSION); return EXIT_DONE;
                default: fprintf(stderr, "migctl --help shows the options\n"); return EXIT_USAGE;
                }
        return -1;
}

/* How many of the words a verb is: "list", "policy list". 0: another one. */
static int is_verb(const Verb *verb, char **words, int n)
{
        size_t first = strcspn(verb->name, " ");
        const char *second = verb->name + first;

        if (strlen(words[0]) != first || strncmp(verb->name, words[0], first) != 0)
                return 0;
        if (!*second)
                return 1;
        return n > 1 && streq(second + 1, words[1]) ? 2 : 0;
}

/* Its words are taken from the arguments. */
static const Verb *find_verb(char ***args, int *n)
{
        for (size_t i = 0; *n > 0 && i < ARRAY_SIZE(verbs); i++) {
                int words = is_verb(&verbs[i], *args, *n);

                *args += words;
                *n -= words;
                if (words > 0)
                        return &verbs[i];
        }
        return *n > 0 ? NULL : &verbs[0];
}

static int no_verb(char **words, int n)
{
        bool two = n > 1 && (streq(words[0], "policy") || streq(words[0], "plugin"));

        fprintf(stderr, "migctl: there is no verb \"%s%s%s\"; migctl --help lists them\n", words[0],
                two ? " " : "", two ? words[1] : "");
        return EXIT_USAGE;
}

/* An option that would be ignored is an error: whoever gave it counts on it. */
static bool fits(const Options *o, const Verb *verb)
{
        const struct {
                bool given;
                const char *option, *verb, *other; /* or NULL */
        } only[] = {{o->incoming, "--incoming", "register"},
                    {o->timeout_usec > 0, "--timeout", "migrate"},
                    {o->bandwidth > 0, "--bandwidth", "migrate", "check"},
                    {o->max_blackout_usec > 0, "--max-blackout", "migrate", "check"},
                    {o->request_id, "--request-id", "migrate"},
                    {o->wait, "--wait", "migrate"},
                    {o->no_wait, "--no-wait", "migrate"},
                    {o->dry_run, "--dry-run", "migrate"},
                    {o->yes, "--yes", "reset"},
                    {o->run_here, "--run-here", "resolve"},
                    {o->discard_here, "--discard-here", "resolve"},
                    {o->vm, "--vm", "history"},
                    {o->since_usec > 0, "--since", "history"},
                    {o->result, "--result", "history"}};

        for (size_t i = 0; i < ARRAY_SIZE(only); i++)
                if (only[i].given && !streq(verb->name, only[i].verb) &&
                    !(only[i].other && streq(verb->name, only[i].other))) {
                        fprintf(stderr, "migctl: %s is for %s, not for %s\n", only[i].option, only[i].verb,
                                verb->name);
                        return false;
                }
        if (o->no_wait && (o->wait || o->dry_run)) {
                fprintf(stderr, "migctl: --no-wait and %s contradict each other\n",
                        o->wait ? "--wait" : "--dry-run");
                return false;
        }
        if (o->run_here && o->discard_here) {
                fprintf(stderr, "migctl: --run-here and --discard-here contradict each other\n");
                return false;
        }
        return true;
}

static int run(Client *client, const Verb *verb, char **args, int n)
{
        int status;

        if (n < verb->least || n > verb->most) {
                fprintf(stderr, "usage: migctl %s %s\n", verb->name, verb->arguments);
                return EXIT_USAGE;
        }
        if (!fits(&client->options, verb))
                return EXIT_USAGE;
        status = client_connect(client);
        if (status == EXIT_DONE)
                status = verb->run(client, args, n);
        /* One that has not been set up to its end is waited for by a flush, maybe for ever. */
        if (sd_bus_is_ready(client->bus) > 0)
                (void) sd_bus_flush(client->bus);
        (void) sd_bus_close_unref(client->bus);
        return status;
}

int main(int argc, char **argv)
{
        Client client = {.options.legend = true};
        char **args;
        const Verb *verb;
        int n, status = read_options(&client.options, argc, argv);

        if (status >= 0)
                return status;
        (void) setlocale(LC_CTYPE, "");
        (void) signal(SIGPIPE, SIG_IGN);
        args = argv + optind;
        n = argc - optind;
        verb = find_verb(&args, &n);
        return verb ? run(&client, verb, args, n) : no_verb(args, n);
}
