// Browsers give no workers to pages that are opened as files. The search runs in one, so a hidden frame takes its place.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const scope = this.frame.contentWindow;
      scope.postMessage = (data) => this.onmessage?.(new MessageEvent("message", { data }));
      this.ready = new Promise((loaded) => {
        const script = scope.document.createElement("script");
        script.onload = () => loaded(scope);
        script.onerror = () => this.onerror?.(new ErrorEvent("error"));
        script.src = new URL(url, location.href).href;
        scope.document.body.append(script);
      });
    }

    postMessage(data) {
      this.ready.then((scope) => scope.onmessage(new scope.MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
