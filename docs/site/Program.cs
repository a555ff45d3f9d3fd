using HpcBatchNorm.Site;

if (args.Length != 2)
{
    Console.Error.WriteLine("Name the folder of the repository and the folder to write to.");
    return 2;
}

SiteBuilder site = SiteBuilder.Build(args[0]);
if (site.FindBrokenLinks() is { Count: > 0 } broken)
{
    foreach (string link in broken)
    {
        Console.Error.WriteLine(link);
    }

    Console.Error.WriteLine($"error: {broken.Count} links lead nowhere; nothing was written.");
    return 1;
}

site.Write(args[1]);
Console.WriteLine($"{site.Pages.Count} pages: {Path.GetFullPath(Path.Combine(args[1], "index.html"))}");
return 0;
