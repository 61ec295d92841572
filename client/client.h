/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* migctl: one verb, one file. What the daemon says comes as D-Bus messages and is turned into JSON once (bus.c); what
 * people see is made from that by the writers, and programs get it as it is. */

#include <stdio.h>
#include <systemd/sd-bus.h>

#include "common/json.h"
#include "common/outcome.h"

#define MIGMGR_NAME "org.migmgr1"
#define MIGMGR_ROOT "/org/migmgr1"

/* Options that every verb has, and those of single ones. */
typedef struct Options {
        const char *bus_address;
        bool json, json_pretty;
        bool legend;
        bool incoming;               /* register */
        bool yes;                    /* reset */
        bool wait, no_wait, dry_run; /* migrate */
        uint64_t timeout_usec;       /* migrate */
        uint64_t bandwidth;          /* migrate, check: bytes per second; 0: no limit */
        uint64_t max_blackout_usec;
        const char *request_id;
        bool run_here, discard_here; /* resolve */
        const char *vm, *result;     /* history */
        uint64_t since_usec;         /* ... CLOCK_REALTIME */
} Options;

typedef struct Client {
        sd_bus *bus;
        Options options;
} Client;

typedef struct Verb {
        const char *name, *arguments;
        int least, most; /* arguments */
        int (*run)(Client *client, char **args, int n);
        const char *doc;
} Verb;

/* Returns exit statuses (common/outcome.h); what went wrong was said on stderr. */
int cmd_register(Client *client, char **args, int n);
int cmd_unregister(Client *client, char **args, int n);
int cmd_list(Client *client, char **args, int n);
int cmd_status(Client *client, char **args, int n);
int cmd_devices(Client *client, char **args, int n);
int cmd_check(Client *client, char **args, int n);
int cmd_migrate(Client *client, char **args, int n);
int cmd_cancel(Client *client, char **args, int n);
int cmd_jobs(Client *client, char **args, int n);
int cmd_show(Client *client, char **args, int n);
int cmd_history(Client *client, char **args, int n);
int cmd_resolve(Client *client, char **args, int n);
int cmd_reset(Client *client, char **args, int n);
int cmd_plugin_list(Client *client, char **args, int n);
int cmd_policy_list(Client *client, char **args, int n);
int cmd_policy_show(Client *client, char **args, int n);
int cmd_policy_check(Client *client, char **args, int n);
int cmd_policy_explain(Client *client, char **args, int n);
int cmd_policy_reload(Client *client, char **args, int n);
int cmd_monitor(Client *client, char **args, int n);

/* ---- bus.c --------------------------------------------------------------------------------------------------- */

/* A connection, or the exit status. */
int client_connect(Client *client);

/* Says on stderr what the error says, and returns its exit status. `r`: what the call returned. */
int client_failed(const sd_bus_error *error, int r);

/* What is left of a message, as JSON: one value, or an array of several. */
json_object *client_message_to_json(sd_bus_message *m);

/* All objects: {path: {interface: {property: value}}}, those of devices only when they are wanted: there may be thousands.
 * 0, or an exit status. */
int client_objects(Client *client, bool devices, json_object **ret);

/* The VM of that name or UUID among them: its properties, or NULL after saying so. */
json_object *client_find_vm(json_object *objects, const char *name, const char **ret_path);

/* The properties of an object's interface, or NULL. */
json_object *client_interface(json_object *objects, const char *path, const char *interface);

/* A property as text; "" when there is none. Lives as long as `properties`. */
const char *client_text(json_object *properties, const char *key);
int64_t client_number(json_object *properties, const char *key);

/* Appends the options of a move, a{sv}, that were given. */
int client_append_move(const Client *client, sd_bus_message *call) _must_check_;

/* The path of the object of the job with that UUID; false, after saying so, when it is none. */
bool client_job_path(const char *id, char ret[64]);

/* Calls Cancel of that job. 0, or an exit status. */
int client_cancel(Client *client, const char *path);

/* What Check says of a move: whether it is possible, and its report. 0, or an exit status. */
int client_check(Client *client, char **args, bool *ret_ok, json_object **ret_report);

/* `text`, which migmgrd has said, as JSON of `type`; `what` it is, for people. 0, or an exit status after a word on stderr. */
int client_read_json(const char *text, const char *what, json_type type, json_object **ret);

/* Everything about a job, by UUID. 0, or an exit status. */
int client_get_job(Client *client, const char *id, json_object **ret);

/* The part of an object path behind its last slash, as UUID. */
void client_uuid_of_path(const char *path, char ret[37]);

/* ---- writer-text.c, writer-json.c ----------------------------------------------------------------------------- */

/* A column of a table. On a terminal that is too narrow for all of them, cells of the column with the largest `give` are
 * shortened first, then those of the next; where it is 0 they stay. */
typedef struct Column {
        const char *heading;
        unsigned int give;
} Column;

/* Returns `p`; if it is NULL, out of memory ends migctl, with a word and as json_add() does: none of its exit statuses, which
 * say where a VM is, would be true. */
void *client_need(void *p);

/* A table that is printed when it is whole, its columns lined up. Cells are copied. */
typedef struct Table Table;
Table *table_new(const Column *columns, size_t n_columns);
void table_row(Table *table, const char *const *cells);
/* With a heading when `legend`, and shortened only where `f` is a terminal; frees it. */
void table_print(Table *table, bool legend, FILE *f);

/* As the options say: short or pretty. Takes the object over. */
void write_json(const Client *client, json_object *object);

/* "812 us", "3.1 ms", "12.0 s", "1.5 GiB". */
const char *format_usec(uint64_t usec, char ret[32]);
const char *format_bytes(uint64_t bytes, char ret[32]);
/* How long ago, in one unit: "12 s", "3 min", "5 h", "2 days". */
const char *format_age(uint64_t usec, char ret[32]);

/* Date and time of CLOCK_REALTIME, local; "-" for 0. */
const char *format_time(int64_t usec, char ret[32]);

/* ---- cmd-history.c ------------------------------------------------------------------------------------------- */

/* A date, a date and time, or how long ago: "2026-11-21", "2026-11-21 14:30", "2h". */
bool read_since(const char *text, uint64_t now_usec, uint64_t *ret_usec);

/* ---- plan-view.c --------------------------------------------------------------------------------------------- */

/* The phases of a move, how long each may take, and who takes part. */
void plan_view(json_object *plan, bool legend, FILE *f);

/* ---- report-view.c ------------------------------------------------------------------------------------------- */

/* What check foretells and promises, and between which hosts. */
void report_view(json_object *report, bool legend, FILE *f);

/* ---- timeline-view.c ----------------------------------------------------------------------------------------- */

/* A job's phases and its blackout, as tables and bars. */
void timeline_view(json_object *job, FILE *f);

/* ---- findings-view.c ----------------------------------------------------------------------------------------- */

/* The findings of a report or a job; nothing when it has none. */
void findings_view(json_object *report, bool legend, FILE *f);

/* ---- steps-view.c -------------------------------------------------------------------------------------------- */

/* The states that a job went through, one a line, as they were noted at the time. */
void steps_view(json_object *job, bool legend, FILE *f);
