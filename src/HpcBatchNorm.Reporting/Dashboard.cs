using System.Globalization;
using System.IO.Hashing;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace HpcBatchNorm.Reporting;

/// <summary>
/// Serves the pages of runs to this machine's browsers, always as the runs are now. A page asks every <see cref="RefreshSeconds"/> seconds whether
/// anything changed. Read only: it never writes to a run, and serves no file, only pages made from runs that it found itself.
/// </summary>
internal sealed class Dashboard : IDisposable
{
    /// <summary>The port when nobody names one.</summary>
    public const int DefaultPort = 6160;

    /// <summary>How many ports from <see cref="DefaultPort"/> on are tried when nobody names one.</summary>
    public const int DefaultPorts = 10;

    private const int RefreshSeconds = 2;

    /// <summary>Of answers that are no page.</summary>
    private const string NothingAllowed = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'";

    private readonly IReadOnlyList<string> _roots;
    private readonly HttpListener _listener;
    private readonly Dictionary<string, RunFolder> _runs = new(StringComparer.Ordinal);

    /// <summary>Begins to listen, on the loopback interface only.</summary>
    /// <param name="roots">Runs, or folders of runs.</param>
    /// <param name="port">A port; 0 for any; null for the first free one from <see cref="DefaultPort"/> on.</param>
    /// <exception cref="UserErrorException">A folder does not exist, or the port is taken.</exception>
    public Dashboard(IReadOnlyList<string> roots, int? port)
    {
        foreach (string root in roots.Where(r => !Directory.Exists(r)))
        {
            throw new UserErrorException($"'{root}' is no folder. Name a run's folder, or one that holds runs.");
        }

        _roots = roots;
        (_listener, Port) = Listen(port);
    }

    /// <summary>The port it listens on.</summary>
    public int Port { get; }

    /// <summary>Where the pages are: <c>http://localhost:6160/</c>.</summary>
    public string Address => FormattableString.Invariant($"http://localhost:{Port}/");

    /// <summary>Serves until cancelled.</summary>
    public void Run(CancellationToken stop)
    {
        using CancellationTokenRegistration registration = stop.Register(_listener.Stop);
        while (!stop.IsCancellationRequested)
        {
            HttpListenerContext context;
            try
            {
                context = _listener.GetContext();
            }
            catch (Exception error) when (error is HttpListenerException or ObjectDisposedException or InvalidOperationException)
            {
                return;
            }

            Reply reply = Answer(context.Request);
            // A browser that reads slowly must not keep others waiting.
            _ = Task.Run(() => Send(context.Response, reply), CancellationToken.None);
        }
    }

    public void Dispose() => _listener.Close();

    /// <summary>What is sent.</summary>
    /// <param name="Status">HTTP's.</param>
    /// <param name="Body">The content.</param>
    /// <param name="Version">What changes with a page's content; null for what is no page.</param>
    /// <param name="Policy">The content security policy.</param>
    private readonly record struct Reply(HttpStatusCode Status, byte[] Body, string? Version, string Policy);

    private Reply Answer(HttpListenerRequest request)
    {
        try
        {
            return request.HttpMethod is "GET" or "HEAD" ? Page(request) : Text(HttpStatusCode.MethodNotAllowed, "Only GET is answered here.");
        }
        catch (Exception error) when (IsOfARun(error))
        {
            // A folder was replaced while it was read; the next look may find it whole.
            return Text(HttpStatusCode.ServiceUnavailable, error.Message);
        }
    }

    /// <summary>
    /// True for all that a run's files can cause. A dashboard shows other people's runs, whatever their files say: it goes on, and says which run it was.
    /// </summary>
    private static bool IsOfARun(Exception error) => error is not OutOfMemoryException;

    private Reply Page(HttpListenerRequest request)
    {
        List<(string Name, RunFolder Run)> runs = FindRuns();
        string main, title;
        switch (request.Url!.AbsolutePath)
        {
            case "/":
                title = "hpcbn runs";
                List<(string Name, string Problem)> unreadable = [];
                runs.RemoveAll(r =>
                {
                    bool read = TryUpdate(r.Run, out string problem);
                    unreadable.AddRange(read ? [] : [(r.Name, problem)]);
                    return !read;
                });
                main = RunsPage.Main(runs, [.. request.QueryString.GetValues("run") ?? []], request.QueryString["x"] == "step", unreadable);
                break;
            case "/run":
                string? name = request.QueryString["name"];
                if (runs.Find(r => r.Name == name).Run is not { } run)
                {
                    return Text(HttpStatusCode.NotFound, $"There is no run '{name}' here.");
                }

                title = run.Name;
                main = "<nav><a href=\"/\">all runs</a></nav>\n";
                try
                {
                    run.Log.Update();
                    title = RunPage.Title(run);
                    main += RunPage.Main(run);
                }
                catch (Exception error) when (IsOfARun(error))
                {
                    main += $"<h1>{WebUtility.HtmlEncode(run.Name)}</h1>\n<p class=\"note\">This run cannot be shown: {WebUtility.HtmlEncode(error.Message)}</p>\n";
                }

                break;
            default:
                return Text(HttpStatusCode.NotFound, "There is nothing here; the pages are / and /run?name=NAME.");
        }

        string version = Convert.ToHexStringLower(XxHash64.Hash(Encoding.UTF8.GetBytes(main)));
        if (request.QueryString["since"] is string since)
        {
            return since == version
                ? new Reply(HttpStatusCode.NoContent, [], version, NothingAllowed)
                : new Reply(HttpStatusCode.OK, Encoding.UTF8.GetBytes(main), version, NothingAllowed);
        }

        (string html, string policy) = WebPage.Render(title, main, version, RefreshSeconds);
        return new Reply(HttpStatusCode.OK, Encoding.UTF8.GetBytes(html), version, policy);
    }

    private static bool TryUpdate(RunFolder run, out string problem)
    {
        problem = "";
        try
        {
            run.Log.Update();
            return true;
        }
        catch (Exception error) when (IsOfARun(error))
        {
            problem = error.Message;
            return false;
        }
    }

    /// <summary>
    /// The runs there are now, newest first: named by their path below the folder that was named, and, when two have the same, by the whole.
    /// </summary>
    private List<(string Name, RunFolder Run)> FindRuns()
    {
        List<(string Name, string Path)> found = [];
        foreach (string root in _roots)
        {
            if (RunFolder.IsRun(root))
            {
                found.Add((Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(root))), root));
            }
            else if (Directory.Exists(root))
            {
                // Runs, and folders of them: those of an experiment, for example.
                var readable = new EnumerationOptions { IgnoreInaccessible = true };
                IEnumerable<string> folders = Directory.GetDirectories(root, "*", readable).SelectMany(f => RunFolder.IsRun(f) ? [f] : Directory.GetDirectories(f, "*", readable));
                found.AddRange(folders.Where(RunFolder.IsRun).Select(f => (Path.GetRelativePath(root, f), f)));
            }
        }

        List<(string Name, RunFolder Run)> runs = [];
        foreach (IGrouping<string, (string Name, string Path)> same in found.DistinctBy(f => Path.GetFullPath(f.Path)).GroupBy(f => f.Name))
        {
            foreach ((string name, string path) in same)
            {
                if (!_runs.TryGetValue(path, out RunFolder? run))
                {
                    _runs.Add(path, run = new RunFolder(path));
                }

                runs.Add((same.Count() == 1 ? name : path, run));
            }
        }

        return [.. runs.OrderByDescending(r => r.Name, StringComparer.Ordinal)];
    }

    private static void Send(HttpListenerResponse response, Reply reply)
    {
        try
        {
            response.StatusCode = (int)reply.Status;
            response.Headers["Cache-Control"] = "no-store";
            response.Headers["Content-Security-Policy"] = reply.Policy;
            response.Headers["X-Content-Type-Options"] = "nosniff";
            response.ContentType = reply.Version is null ? "text/plain; charset=utf-8" : "text/html; charset=utf-8";
            if (reply.Version is not null)
            {
                response.Headers["X-Version"] = reply.Version;
            }

            response.Close(reply.Body, willBlock: true);
        }
        catch (Exception error) when (error is HttpListenerException or ObjectDisposedException or IOException or InvalidOperationException)
        {
            // The browser went away, or we did.
        }
    }

    private static Reply Text(HttpStatusCode status, string text) => new(status, Encoding.UTF8.GetBytes(text + "\n"), null, NothingAllowed);

    private static (HttpListener Listener, int Port) Listen(int? port)
    {
        int[] ports = port switch { null => [.. Enumerable.Range(DefaultPort, DefaultPorts)], 0 => [FreePort()], int named => [named] };
        string answer = "";
        foreach (int candidate in ports)
        {
            var listener = new HttpListener();
            // Requests that name another host, which a page from elsewhere might make, are refused by the listener.
            listener.Prefixes.Add(FormattableString.Invariant($"http://127.0.0.1:{candidate}/"));
            listener.Prefixes.Add(FormattableString.Invariant($"http://localhost:{candidate}/"));
            try
            {
                listener.Start();
                return (listener, candidate);
            }
            catch (Exception error) when (error is HttpListenerException or SocketException)
            {
                listener.Close();
                answer = error.Message;
            }
        }

        // Windows has its web server in the kernel, which refuses a port for other reasons too; its own words say which.
        string problem = OperatingSystem.IsWindows() ? $"cannot be opened ({answer})" : ports.Length > 1 ? "are in use" : "is in use";
        throw new UserErrorException(string.Create(CultureInfo.InvariantCulture, $"Port {ports[0]}{(ports.Length > 1 ? $" to {ports[^1]}" : "")} {problem}. Choose another port; 0 takes any that is free."));
    }

    private static int FreePort()
    {
        using var probe = new TcpListener(IPAddress.Loopback, 0);
        probe.Start();
        return ((IPEndPoint)probe.LocalEndpoint).Port;
    }
}
