/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What check reports of a move beside what speaks against it: how long the VM will stand still, what is promised, and what the
 * two hosts are. */

#include <stdio.h>

#include "common/log.h"
#include "core/forecast.h"
#include "core/guarantees.h"
#include "core/p2p.h"
#include "job.h"
#include "manifest-json.h"

/* ---- how long ---------------------------------------------------------------------------------------------------- */

static Forecast look_ahead(const Job *job, const ManifestDevice *device)
{
        const MeasuredDevice *measured = measured_find(&job->vm->measured, device->id);
        ForecastFacts facts = {.estimate_usec = device->estimate_usec, .state_bytes = device->state_bytes};

        if (measured) {
                facts.was_measured = true;
                facts.measured_usec = measured->usec;
                facts.measured_bytes = measured->bytes;
        }
        return forecast_device(&facts);
}

static void add_forecast(json_object *o, const Forecast *forecast)
{
        json_add_number(o, "usec", (int64_t) MIN(forecast->usec, (uint64_t) INT64_MAX));
        json_add_string(o, "basis", forecast_basis_to_string(forecast->basis));
        json_add_number(o, "bytes", (int64_t) MIN(forecast->bytes, (uint64_t) INT64_MAX));
}

/* `ret_devices`: an array of what each has; NULL: nobody wants it. */
static Forecast forecast(const Job *job, const Manifest *manifest, json_object *ret_devices)
{
        Forecast *devices = calloc(manifest->n_devices + 1, sizeof *devices), all;

        if (!devices)
                out_of_memory();
        for (uint32_t i = 0; i < manifest->n_devices; i++) {
                json_object *o;

                devices[i] = look_ahead(job, &manifest->devices[i]);
                if (!ret_devices)
                        continue;
                o = json_new_object();
                json_add_string(o, "id", manifest->devices[i].id);
                add_forecast(o, &devices[i]);
                json_append(ret_devices, o);
        }
        all = forecast_vm(job->vm->measured.blackout_usec, devices, manifest->n_devices,
                          manifest->vmm.type != VMM_TYPE_NONE);
        free(devices);
        return all;
}

uint64_t job_predict(const Job *job, const Manifest *manifest)
{
        return forecast(job, manifest, NULL).usec;
}

static json_object *forecast_to_json(const Job *job, const Manifest *manifest)
{
        json_object *o = json_new_object(), *devices = json_new_array();
        Forecast all = forecast(job, manifest, devices);

        add_forecast(o, &all);
        json_add(o, "devices", devices);
        return o;
}

/* ---- what is promised -------------------------------------------------------------------------------------------- */

static bool compares(const PolicyView *view)
{
        for (uint32_t i = 0; i < view->n_compat; i++)
                if (view->compat[i].how != COMPAT_IGNORE)
                        return true;
        return false;
}

static void look_at_policies(const Job *job, const Manifest *manifest, GuaranteeFacts *facts)
{
        const PolicyRules *rules = &job->host->policies->rules;
        PolicyView view;
        uint32_t other;

        for (uint32_t i = 0; i < manifest->n_devices; i++) {
                policy_of_device(rules, manifest, &manifest->devices[i], &view);
                facts->n_uncompared += !compares(&view);
                facts->risk_accepted |=
                        p2p_judge(manifest, i, (PolicyP2p) view.values[POLICY_P2P], &other) == P2P_RISK;
        }
}

static json_object *guarantees_to_json(const Job *job, const Manifest *manifest)
{
        GuaranteeFacts facts = {.source = manifest,
                                .plan = &job->plan,
                                .peer_known = strncmp(job->peer, "unix:", 5) == 0,
                                .blackout_limited = job->plan.max_blackout_usec > 0};
        json_object *array = json_new_array();

        look_at_policies(job, manifest, &facts);
        for (Guarantee g = 0; g < GUARANTEE_MAX; g++) {
                const char *gap = guarantee_gap(g, &facts);
                json_object *o = json_new_object();

                json_add_string(o, "guarantee", guarantee_to_string(g));
                json_add_bool(o, "holds", !gap);
                json_add_string(o, "promise", guarantee_promise(g));
                json_add_string(o, "gap", gap ? gap : "");
                json_append(array, o);
        }
        return array;
}

/* ---- between whom ------------------------------------------------------------------------------------------------ */

json_object *job_host_json(const Manifest *manifest)
{
        json_object *o = json_new_object();
        char printable[FINDING_VALUE_MAX];

        json_add_string(o, "migmgrd", manifest->daemon);
        json_add_string(o, "kernel", log_printable(manifest->kernel, printable, sizeof printable));
        json_add_string(o, "vmm", log_printable(manifest->vmm.version, printable, sizeof printable));
        json_add_string(o, "machine", log_printable(manifest->vmm.machine, printable, sizeof printable));
        json_add_number(o, "free_bytes", manifest->free_bytes);
        return o;
}

static json_object *hosts_to_json(const Job *job, const Manifest *manifest)
{
        json_object *o = json_new_object();

        json_add(o, "source", job_host_json(manifest));
        json_add(o, "destination", json_object_get(job->peer_host));
        return o;
}

/* What a policy can match and compare. */
static json_object *devices_to_json(const Manifest *manifest)
{
        json_object *array = json_new_array();

        for (uint32_t i = 0; i < manifest->n_devices; i++)
                json_append(array, manifest_identity_to_json(&manifest->devices[i]));
        return array;
}

json_object *job_report(const Job *job)
{
        json_object *report = json_new_object();
        Manifest manifest;

        if (vm_manifest(job->vm, &manifest) < 0)
                out_of_memory();
        json_add_bool(report, "ok",
                      !findings_json_first_refusal(job->findings) && job_result(job) == JOB_RESULT_DONE);
        json_add(report, "findings", json_object_get(job->findings));
        json_add_number(report, "more_findings", job->more_findings);
        json_add_number(report, "plugins_msec", (int64_t) vm_plugins_blackout_ms(job->vm));
        json_add(report, "plan", job_plan_report(job));
        json_add(report, "blackout", forecast_to_json(job, &manifest));
        json_add(report, "guarantees", guarantees_to_json(job, &manifest));
        json_add(report, "hosts", hosts_to_json(job, &manifest));
        json_add(report, "devices", devices_to_json(&manifest));
        manifest_deinit(&manifest);
        return report;
}
