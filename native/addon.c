// Entry of the addon, and how arguments come in and errors go out.
#include "addon.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool arguments(napi_env env, napi_callback_info info, int wanted, napi_value *values, struct addon **addon) {
  size_t given = (size_t)(wanted < 0 ? -wanted : wanted);
  void *data = NULL;
  if (napi_get_cb_info(env, info, &given, values, NULL, NULL) != napi_ok) return false;
  if (wanted > 0 && given < (size_t)wanted) {
    napi_throw_type_error(env, "ERR_MISSING_ARGS", "too few arguments");
    return false;
  }
  if (addon != NULL) {
    if (napi_get_instance_data(env, &data) != napi_ok || data == NULL) {
      napi_throw_error(env, NULL, "the addon is shut down");
      return false;
    }
    *addon = data;
  }
  return true;
}

napi_value throw_type(napi_env env, const char *name, const char *wanted) {
  char text[160];
  snprintf(text, sizeof text, "%s must be %s", name, wanted);
  napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", text);
  return NULL;
}

bool to_int(napi_env env, napi_value value, int64_t least, int64_t most, const char *name, int64_t *out) {
  double number;
  // Compared as doubles first: a NaN or an infinity fails every comparison, and the cast is safe.
  if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= (double)least) ||
      !(number <= (double)most) || number != (double)(int64_t)number) {
    char wanted[80];
    snprintf(wanted, sizeof wanted, "an integer from %lld to %lld", (long long)least, (long long)most);
    throw_type(env, name, wanted);
    return false;
  }
  *out = (int64_t)number;
  return true;
}

bool to_text(napi_env env, napi_value value, const char *name, char *out, size_t size, size_t *length) {
  size_t needed = 0, written = 0;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &needed) != napi_ok) {
    throw_type(env, name, "a string");
    return false;
  }
  if (needed >= size) {
    throw_type(env, name, "a shorter string");
    return false;
  }
  if (napi_get_value_string_utf8(env, value, out, size, &written) != napi_ok) return false;
  if (length != NULL) *length = written;
  else if (strlen(out) != written) {
    throw_type(env, name, "a string without NUL");
    return false;
  }
  return true;
}

static bool to_typed(napi_env env, napi_value value, const char *name, napi_typedarray_type wanted, void **data,
                     size_t *length) {
  bool typed = false;
  napi_typedarray_type type;
  if (napi_is_typedarray(env, value, &typed) != napi_ok || !typed ||
      napi_get_typedarray_info(env, value, &type, length, data, NULL, NULL) != napi_ok || type != wanted) {
    throw_type(env, name, wanted == napi_uint8_array ? "a Uint8Array" : "an Int32Array");
    return false;
  }
  return true;
}

bool to_bytes(napi_env env, napi_value value, const char *name, uint8_t **data, size_t *length) {
  return to_typed(env, value, name, napi_uint8_array, (void **)data, length);
}

bool to_words(napi_env env, napi_value value, const char *name, int32_t **data, size_t *length) {
  return to_typed(env, value, name, napi_int32_array, (void **)data, length);
}

bool to_unsigned(napi_env env, napi_value value, const char *name, uint32_t **data, size_t *length) {
  return to_typed(env, value, name, napi_uint32_array, (void **)data, length);
}

napi_value from_int(napi_env env, int64_t value) {
  napi_value result = NULL;
  napi_create_int64(env, value, &result);
  return result;
}

napi_value throw_errno(napi_env env, int error, const char *call, const char *object) {
  char text[256];
  const char *code = strerrorname_np(error);
  snprintf(text, sizeof text, "%s: %s, %s%s%s", code == NULL ? "error" : code, strerror(error), call,
           object == NULL ? "" : " ", object == NULL ? "" : object);
  napi_value message, code_value, call_value, failure;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
  napi_create_string_utf8(env, code == NULL ? "UNKNOWN" : code, NAPI_AUTO_LENGTH, &code_value);
  napi_create_string_utf8(env, call, NAPI_AUTO_LENGTH, &call_value);
  if (napi_create_error(env, code_value, message, &failure) != napi_ok) return NULL;
  napi_set_named_property(env, failure, "errno", from_int(env, -error));
  napi_set_named_property(env, failure, "syscall", call_value);
  napi_throw(env, failure);
  return NULL;
}

void define(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok) {
    napi_set_named_property(env, exports, name, value);
  }
}

static void shut_down(napi_env env, void *data, void *hint) {
  (void)hint;
  struct addon *addon = data;
  stop_flusher(addon);
  release_uring(addon);
  release_all_memory(env, addon);
  free(addon);
}

NAPI_MODULE_INIT() {
  struct addon *addon = calloc(1, sizeof *addon);
  if (addon == NULL || napi_set_instance_data(env, addon, shut_down, NULL) != napi_ok) {
    free(addon);
    napi_throw_error(env, NULL, "out of memory");
    return NULL;
  }
  crc32c_prepare();
  define_crc32c(env, exports);
  define_memory(env, exports);
  define_sockets(env, exports);
  define_messages(env, exports);
  define_loop(env, exports);
  define_rows(env, exports);
  define_flush(env, exports);
  return exports;
}
