// Key/Value operations through the C library, reported in the Test Anything Protocol.
//
// Each test gets a new bucket with a history of 5. CHECK prints what is wrong and leaves the test;
// what the library allocated is then left to the end of the process.

#include <nats/nats.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WAIT_MS = 10000 };

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            note("line %d: %s; last error: %s", __LINE__, #what, lastError());                     \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

#define OK(call)                                                                                   \
    do {                                                                                           \
        natsStatus status_ = (call);                                                               \
        if (status_ != NATS_OK) {                                                                  \
            note("line %d: %s: %s; last error: %s", __LINE__, #call, natsStatus_GetText(status_),  \
                 lastError());                                                                     \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

static char notes[4096]; // of the test that runs

static void note(const char *format, ...) {
    va_list args;
    size_t used = strlen(notes);
    va_start(args, format);
    vsnprintf(notes + used, sizeof(notes) - used, format, args);
    va_end(args);
}

static const char *lastError(void) {
    const char *text = nats_GetLastError(NULL);
    return text == NULL ? "none" : text;
}

// replicas is how many the buckets have.
static int replicas(void) {
    const char *given = getenv("CLEAT_COMPAT_REPLICAS");
    return given == NULL ? 1 : atoi(given);
}

// entryIs says whether the entry has this operation, key, value and revision, and destroys it.
static bool entryIs(kvEntry *e, kvOperation op, const char *key, const char *value, uint64_t revision) {
    if (e == NULL) {
        note("there is no entry; ");
        return false;
    }
    const char *got = kvEntry_ValueLen(e) > 0 ? kvEntry_ValueString(e) : "";
    bool same = kvEntry_Operation(e) == op && strcmp(kvEntry_Key(e), key) == 0 && strcmp(got, value) == 0 &&
                kvEntry_Revision(e) == revision;
    if (!same) {
        note("entry is %d %s=%s@%llu; ", kvEntry_Operation(e), kvEntry_Key(e), got,
             (unsigned long long)kvEntry_Revision(e));
    }
    kvEntry_Destroy(e);
    return same;
}

static bool putGet(kvStore *kv) {
    uint64_t rev = 0;
    kvEntry *e = NULL;
    OK(kvStore_PutString(&rev, kv, "greeting", "hello"));
    CHECK(rev == 1);
    OK(kvStore_PutString(&rev, kv, "greeting", "hello world"));
    CHECK(rev == 2);
    OK(kvStore_Get(&e, kv, "greeting"));
    CHECK(entryIs(e, kvOp_Put, "greeting", "hello world", 2));
    OK(kvStore_GetRevision(&e, kv, "greeting", 1));
    CHECK(entryIs(e, kvOp_Put, "greeting", "hello", 1));
    CHECK(kvStore_Get(&e, kv, "nothing") == NATS_NOT_FOUND);
    CHECK(kvStore_GetRevision(&e, kv, "greeting", 9) == NATS_NOT_FOUND);
    return true;
}

static bool binaryValue(kvStore *kv) {
    enum { SIZE = 300000 };
    static unsigned char value[SIZE];
    kvEntry *e = NULL;
    for (int i = 0; i < SIZE; i++) {
        value[i] = (unsigned char)i;
    }
    OK(kvStore_Put(NULL, kv, "binary", value, SIZE));
    OK(kvStore_Get(&e, kv, "binary"));
    CHECK(kvEntry_ValueLen(e) == SIZE);
    CHECK(memcmp(kvEntry_Value(e), value, SIZE) == 0);
    kvEntry_Destroy(e);
    return true;
}

static bool create(kvStore *kv) {
    uint64_t rev = 0;
    OK(kvStore_CreateString(&rev, kv, "key", "1"));
    CHECK(kvStore_CreateString(&rev, kv, "key", "2") != NATS_OK);
    OK(kvStore_Delete(kv, "key"));
    OK(kvStore_CreateString(&rev, kv, "key", "3"));
    CHECK(rev == 3);
    OK(kvStore_Purge(kv, "key", NULL));
    OK(kvStore_CreateString(&rev, kv, "key", "4"));
    CHECK(rev == 5);
    return true;
}

static bool update(kvStore *kv) {
    uint64_t rev = 0;
    kvEntry *e = NULL;
    OK(kvStore_PutString(&rev, kv, "key", "1"));
    OK(kvStore_UpdateString(&rev, kv, "key", "2", 1));
    CHECK(rev == 2);
    CHECK(kvStore_UpdateString(&rev, kv, "key", "3", 1) != NATS_OK);
    CHECK(strstr(lastError(), "wrong last sequence: 2") != NULL);
    OK(kvStore_Get(&e, kv, "key"));
    CHECK(entryIs(e, kvOp_Put, "key", "2", 2));
    return true;
}

static bool deletePurge(kvStore *kv) {
    kvEntry *e = NULL;
    kvEntryList list;
    OK(kvStore_PutString(NULL, kv, "key", "1"));
    OK(kvStore_Delete(kv, "key"));
    CHECK(kvStore_Get(&e, kv, "key") == NATS_NOT_FOUND);
    OK(kvStore_History(&list, kv, "key", NULL));
    CHECK(list.Count == 2);
    CHECK(kvEntry_Operation(list.Entries[1]) == kvOp_Delete);
    kvEntryList_Destroy(&list);
    OK(kvStore_Purge(kv, "key", NULL));
    OK(kvStore_History(&list, kv, "key", NULL));
    CHECK(list.Count == 1);
    CHECK(kvEntry_Operation(list.Entries[0]) == kvOp_Purge);
    kvEntryList_Destroy(&list);
    return true;
}

static bool purgeDeletes(kvStore *kv) {
    kvPurgeOptions options;
    kvStatus *status = NULL;
    kvPurgeOptions_Init(&options);
    options.DeleteMarkersOlderThan = -1;
    OK(kvStore_PutString(NULL, kv, "kept", "1"));
    OK(kvStore_PutString(NULL, kv, "gone", "1"));
    OK(kvStore_Delete(kv, "gone"));
    OK(kvStore_PurgeDeletes(kv, &options));
    OK(kvStore_Status(&status, kv));
    CHECK(kvStatus_Values(status) == 1);
    kvStatus_Destroy(status);
    return true;
}

static bool keys(kvStore *kv) {
    kvKeysList list;
    const char *names[] = {"a", "b.1", "b.2", "gone"};
    for (int i = 0; i < 4; i++) {
        OK(kvStore_PutString(NULL, kv, names[i], "v"));
    }
    OK(kvStore_Delete(kv, "gone"));
    OK(kvStore_Keys(&list, kv, NULL));
    CHECK(list.Count == 3);
    for (int i = 0; i < 3; i++) { // In stream order, which is the order of the puts.
        CHECK(strcmp(list.Keys[i], names[i]) == 0);
    }
    kvKeysList_Destroy(&list);
    return true;
}

static bool history(kvStore *kv) {
    kvEntryList list;
    for (int i = 0; i < 7; i++) {
        char value[8];
        snprintf(value, sizeof(value), "%d", i);
        OK(kvStore_PutString(NULL, kv, "key", value));
    }
    OK(kvStore_History(&list, kv, "key", NULL));
    CHECK(list.Count == 5);
    CHECK(strcmp(kvEntry_ValueString(list.Entries[0]), "2") == 0);
    CHECK(kvEntry_Revision(list.Entries[4]) == 7);
    CHECK(kvEntry_Delta(list.Entries[0]) == 4);
    kvEntryList_Destroy(&list);
    return true;
}

// fill puts a twice and b, and deletes b: revisions 1 to 4.
static bool fill(kvStore *kv) {
    OK(kvStore_PutString(NULL, kv, "a", "1"));
    OK(kvStore_PutString(NULL, kv, "a", "2"));
    OK(kvStore_PutString(NULL, kv, "b", "1"));
    OK(kvStore_Delete(kv, "b"));
    return true;
}

static bool watchAll(kvStore *kv) {
    kvWatcher *w = NULL;
    kvEntry *e = NULL;
    CHECK(fill(kv));
    OK(kvStore_WatchAll(&w, kv, NULL));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(entryIs(e, kvOp_Put, "a", "2", 2));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(entryIs(e, kvOp_Delete, "b", "", 4));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(e == NULL); // The end of the first values.
    OK(kvStore_PutString(NULL, kv, "c", "1"));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(entryIs(e, kvOp_Put, "c", "1", 5));
    OK(kvWatcher_Stop(w));
    kvWatcher_Destroy(w);
    return true;
}

static bool watchHistory(kvStore *kv) {
    kvWatcher *w = NULL;
    kvEntry *e = NULL;
    kvWatchOptions options;
    kvWatchOptions_Init(&options);
    options.IncludeHistory = true;
    options.MetaOnly = true;
    options.IgnoreDeletes = true;
    CHECK(fill(kv));
    OK(kvStore_Watch(&w, kv, "*", &options));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(entryIs(e, kvOp_Put, "a", "", 1));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(entryIs(e, kvOp_Put, "a", "", 2));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(entryIs(e, kvOp_Put, "b", "", 3));
    OK(kvWatcher_Next(&e, w, WAIT_MS));
    CHECK(e == NULL);
    kvWatcher_Destroy(w);
    return true;
}

static bool status(kvStore *kv) {
    kvStatus *s = NULL;
    OK(kvStore_PutString(NULL, kv, "key", "v"));
    OK(kvStore_Status(&s, kv));
    CHECK(strcmp(kvStatus_Bucket(s), kvStore_Bucket(kv)) == 0);
    CHECK(kvStatus_Values(s) == 1);
    CHECK(kvStatus_History(s) == 5);
    CHECK(kvStatus_TTL(s) == 0);
    CHECK(kvStatus_Replicas(s) == replicas());
    kvStatus_Destroy(s);
    return true;
}

static const struct {
    const char *name;
    bool (*run)(kvStore *kv);
} tests[] = {
    {"put and get", putGet},
    {"binary value", binaryValue},
    {"create", create},
    {"update", update},
    {"delete and purge", deletePurge},
    {"purge deletes", purgeDeletes},
    {"keys", keys},
    {"history", history},
    {"watch all", watchAll},
    {"watch history", watchHistory},
    {"status", status},
};

// inBucket runs one test in a bucket of its own.
static bool inBucket(jsCtx *js, int n) {
    char name[32];
    kvConfig config;
    kvStore *kv = NULL;
    kvStore *bound = NULL;
    snprintf(name, sizeof(name), "c_%d_%d", (int)getpid(), n);
    kvConfig_Init(&config);
    config.Bucket = name;
    config.History = 5;
    config.Replicas = replicas();
    OK(js_CreateKeyValue(&kv, js, &config));
    kvStore_Destroy(kv);
    OK(js_KeyValue(&bound, js, name));
    CHECK(tests[n].run(bound));
    kvStore_Destroy(bound);
    OK(js_DeleteKeyValue(js, name));
    CHECK(js_KeyValue(&bound, js, name) == NATS_NOT_FOUND);
    return true;
}

int main(void) {
    natsConnection *nc = NULL;
    jsCtx *js = NULL;
    int failed = 0;
    const char *url = getenv("CLEAT_COMPAT_URL");
    natsStatus s = natsConnection_ConnectTo(&nc, url == NULL ? "127.0.0.1:4222" : url);
    if (s == NATS_OK) {
        s = natsConnection_JetStream(&js, nc, NULL);
    }
    if (s != NATS_OK) {
        fprintf(stderr, "connect: %s\n", natsStatus_GetText(s));
        return 1;
    }
    for (int n = 0; n < (int)(sizeof(tests) / sizeof(tests[0])); n++) {
        notes[0] = 0;
        bool ok = inBucket(js, n);
        failed += !ok;
        printf("%s %d - %s\n", ok ? "ok" : "not ok", n + 1, tests[n].name);
        if (!ok) {
            printf("  %s\n", notes);
        }
    }
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
    nats_Close();
    return failed > 0;
}
